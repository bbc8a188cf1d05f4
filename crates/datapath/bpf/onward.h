/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What another NVE has sent here and goes on to a third one, without its tunnel header. */
#ifndef WEFT_ONWARD_H
#define WEFT_ONWARD_H

/* What the VXLAN device has taken off a frame, and what it is to go on with. */
struct outer {
	struct weft_ip from;
	struct weft_ip to; /* of ONWARD */
	__u32 vni;
	__u16 ttl;
	__u8 ds;
	__u8 pad;
};

/* A function of its own for the sake of the stack. */
static __noinline bool read_outer(struct __sk_buff *skb, struct outer *at)
{
	struct bpf_tunnel_key key;
	__u32 i;

	if (!at)
		return false;
	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		ip_from_v4(&at->from, bpf_htonl(key.remote_ipv4));
	} else if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)) {
		for (i = 0; i < 4; i++)
			at->from.w[i] = key.remote_ipv6[i];
	} else {
		return false;
	}
	at->vni = key.tunnel_id;
	at->ttl = key.tunnel_ttl;
	at->ds = key.tunnel_tos;
	return true;
}

/* A traced one (ONWARD): to the NVE that was told of it, else it ends here. The VXLAN device writes no id, so it leaves from
 * here. `reason`: why it goes on. */
static __noinline int trace_onward(struct __sk_buff *skb, const struct outer *outer, const struct eth *inner, __u32 reason)
{
	struct weft_config *cfg = get_config();
	struct weft_trace *t = find_trace(skb->mark);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct weft_count amount;
	struct hop *hop;
	struct where w;

	if (!outer || !inner || !cfg)
		return TC_ACT_SHOT;
	if (!t || !same_ip(&t->next, &outer->to))
		return say(skb, WEFT_DID_STOP, reason, 0, TC_ACT_SHOT);
	w.vni = outer->vni;
	w.slot = ~0U; /* no VAP's here */
	w.path = WEFT_PATH_DIRECT;
	w.direction = WEFT_IN;
	w.ttl = outer->ttl;
	w.ds = outer->ds;
	w.sport = bpf_htons(0xc000 | (bpf_get_hash_recalc(skb) & 0x3fff));
	hop = find_hop(skb, cfg, &outer->to, &w, now);
	if (!hop || grow(skb, is_v4(&outer->to)))
		return drop(skb, w, WEFT_KERNEL);
	amount.packets = 0;
	amount.bytes = 0;
	count(skb, bpf_map_lookup_elem(&vns, &w.vni) ? w.vni : 0, reason, w.path, w.direction);
	if (is_v4(&outer->to))
		return leave4(skb, &w, cfg, &outer->to, inner, 0, hop, &amount, reason);
	return leave6(skb, &w, cfg, &outer->to, inner, 0, hop, &amount, reason);
}

#endif
