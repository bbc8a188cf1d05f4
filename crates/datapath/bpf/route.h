/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Routing inside a subnet, where the VN's table is pushed: frames to the MAC address that all NVEs of the VN
 * answer with for a tenant system they do not know yet. The TTL stays, nothing is a router here. */
#ifndef WEFT_ROUTE_H
#define WEFT_ROUTE_H

/* Frames a second for one unknown destination: as many as are worth being held. */
#define HELD_A_SECOND 8

static __always_inline bool distributes(__u8 mode)
{
	return (mode & WEFT_LEARNS) == WEFT_LEARNS_DISTRIBUTE;
}

/* MacAddr::anycast(vni) */
static __always_inline bool is_anycast(const __u8 *mac, __u32 vni)
{
	return mac[0] == 0x06 && mac[1] == 0x57 && !mac[2] && mac[3] == (vni >> 16 & 0xff) &&
	       mac[4] == (vni >> 8 & 0xff) && mac[5] == (vni & 0xff);
}

static __always_inline struct weft_neighbour *find_neighbour(__u32 vni, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;

	key.scope = vni;
	key.ip = *ip;
	return bpf_map_lookup_elem(&neighbours, &key);
}

/* Beside the VAP's own limit, so that one destination does not take all of it. */
static __always_inline bool may_hold(__u32 vni, const struct weft_ip *dst)
{
	__u64 zero = 0, *tat;
	struct weft_vn_mac key;

	key.vni = vni;
	*(__u32 *)key.mac = dst->w[0] ^ dst->w[1] ^ dst->w[2] ^ dst->w[3];
	*(__u16 *)(key.mac + 4) = dst->w[3] >> 16;
	*(__u16 *)key.pad = 1; /* not one of the MAC addresses that are kept there too */
	tat = bpf_map_lookup_elem(&asked, &key);
	if (!tat) {
		bpf_map_update_elem(&asked, &key, &zero, BPF_NOEXIST);
		tat = bpf_map_lookup_elem(&asked, &key);
	}
	return tat && take_token(tat, SECOND / HELD_A_SECOND, SECOND);
}

/* To the agent as a whole, so that it can be sent on when the answer is there. Of what is longer than that
 * (segmentation offload, mostly) the beginning. */
static __noinline int hold(struct __sk_buff *skb, struct weft_vap *vap, const struct weft_ip *dst)
{
	__u32 outcome = WEFT_PUNTED, len = skb->len;
	struct weft_held *p;
	__u32 vni, path;

	if (!vap || !dst)
		return TC_ACT_SHOT;
	vni = vap->vni;
	path = vap->path;
	if (!may_hold(vni, dst) || !take_token(&vap->punt_tat, vap->punt_interval, vap->punt_window)) {
		outcome = WEFT_PUNT_LIMITED;
		goto out;
	}
	p = bpf_ringbuf_reserve(&punts, sizeof(*p), 0);
	if (!p) {
		outcome = WEFT_PUNT_RING_FULL;
		goto out;
	}
	p->ifindex = skb->ifindex;
	p->vni = vni;
	p->reason = WEFT_PUNT_ROUTE;
	if (len > WEFT_HELD_BYTES)
		len = WEFT_HELD_BYTES;
	asm volatile("" : "+r"(len)); /* the bound is to be of the register that the helper is given */
	if (len < ETH_LEN || len > WEFT_HELD_BYTES || bpf_skb_load_bytes(skb, 0, p->frame, len))
		len = 0;
	p->len = len;
	copy_mac(p->dst, p->frame);
	p->pad[0] = 0;
	p->pad[1] = 0;
	bpf_ringbuf_submit(p, 0);
out:
	count(skb, vni, outcome, path, WEFT_OUT);
	if (outcome == WEFT_PUNTED)
		return say(skb, WEFT_DID_PUNT, WEFT_PUNTED, WEFT_PUNT_ROUTE, TC_ACT_SHOT);
	return say(skb, WEFT_DID_DROP, outcome, 0, TC_ACT_SHOT);
}

/* Gives the frame the MAC address of its destination's owner, in `eth` and itself; other values than GO_ON
 * are what the program returns. */
static __noinline int route_inside(struct __sk_buff *skb, struct weft_vap *vap, struct eth *eth)
{
	struct weft_neighbour *n;
	struct weft_vn_mac key;
	struct weft_ip dst;
	struct where w;
	struct eth *p;
	__be32 v4;
	bool one; /* a unicast destination */

	if (!vap || !eth)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 16, &v4, 4))
			return drop(skb, w, WEFT_MALFORMED);
		ip_from_v4(&dst, v4);
		one = v4 && (v4 & bpf_htonl(0xe0000000)) != bpf_htonl(0xe0000000);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 24, &dst, 16))
			return drop(skb, w, WEFT_MALFORMED);
		one = !is_unspecified(&dst) && (dst.w[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000);
	} else {
		one = false;
	}
	if (!one)
		return drop(skb, w, WEFT_UNKNOWN_MAC);
	n = find_neighbour(w.vni, &dst);
	if (!n)
		return hold(skb, vap, &dst);
	if (!n->known)
		return drop(skb, w, WEFT_NOBODY);
	key.vni = w.vni;
	copy_mac(key.mac, n->mac);
	*(__u16 *)key.pad = 0;
	if (!bpf_map_lookup_elem(&fdb, &key))
		return hold(skb, vap, &dst);
	p = head(skb, ETH_LEN);
	if (!p)
		return drop(skb, w, WEFT_KERNEL);
	copy_mac(p->h_dest, key.mac);
	copy_mac(eth->h_dest, key.mac);
	return GO_ON;
}

#endif
