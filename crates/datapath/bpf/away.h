/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Tenant systems that were here and have moved on: frames that still come for them are redirected. */
#ifndef WEFT_AWAY_H
#define WEFT_AWAY_H

static __always_inline struct weft_away *find_away(const struct weft_vn_mac *key)
{
	return bpf_map_lookup_elem(&away, key);
}

/* Whether an RLOC is another NVE's than the one that a frame came from. */
static __always_inline bool elsewhere(const struct weft_ip *rloc, const struct weft_ip *from, __u32 node)
{
	struct weft_peer *peer;

	if (same_ip(rloc, from))
		return false;
	peer = bpf_map_lookup_elem(&peers, rloc);
	return !peer || peer->node != node;
}

/* A stripped frame goes on to where its destination went, with the outer TTL that it came with less one: however
 * wrong the tables of several NVEs are, it goes round no longer than that allows, and never straight back. Its
 * sender is solicited to ask where the destination is. `outer` is that TTL and, eight bits higher, the DS field, which
 * stays. */
static __noinline int redirect(struct __sk_buff *skb, __u32 vni, const struct weft_ip *from, const struct eth *inner,
			       __u32 outer)
{
	__u32 ttl = outer & 0xff, ds = outer >> 8 & 0xfc;
	struct weft_config *cfg = get_config();
	struct weft_away *gone;
	struct weft_peer *peer;
	struct weft_vn_mac key;
	struct weft_ip rloc;
	struct where w;

	if (!from || !inner || !cfg)
		return TC_ACT_SHOT;
	w.vni = bpf_map_lookup_elem(&vns, &vni) ? vni : 0;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	key.vni = vni;
	copy_mac(key.mac, inner->h_dest);
	*(__u16 *)key.pad = 0;
	gone = find_away(&key);
	if (!gone)
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	rloc = gone->rloc;
	peer = bpf_map_lookup_elem(&peers, from);
	if (ttl <= 1 || !peer || !elsewhere(&rloc, from, peer->node))
		return drop(skb, w, WEFT_REDIRECT_LOOP);
	report(skb, vni, from, 0);
	if (is_traced(skb)) {
		trace_tell(skb, WEFT_STEP_LOCATION, WEFT_STEP_BY_LEARNING, 0, &rloc);
		if (trace_stops(skb))
			return say(skb, WEFT_DID_STOP, WEFT_REDIRECTED, 0, TC_ACT_SHOT);
	}
	if (!(cfg->families & (is_v4(&rloc) ? WEFT_FAMILY_V4 : WEFT_FAMILY_V6)))
		return drop(skb, w, WEFT_NO_RLOC);
	if (set_tunnel(skb, cfg, vni, &rloc, ttl - 1, ds))
		return drop(skb, w, WEFT_KERNEL);
	count(skb, w.vni, WEFT_REDIRECTED, w.path, w.direction);
	return say(skb, WEFT_DID_DEVICE, WEFT_REDIRECTED, cfg->vxlan_ifindex, bpf_redirect(cfg->vxlan_ifindex, 0));
}

#endif
