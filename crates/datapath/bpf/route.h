/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Routing inside a subnet, where the VN's table is pushed: frames to the MAC address that all NVEs of the VN
 * answer with for a tenant system they do not know yet. The TTL stays, nothing is a router here. */
#ifndef WEFT_ROUTE_H
#define WEFT_ROUTE_H

static __always_inline struct weft_neighbour *find_neighbour(__u32 vni, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;

	key.scope = vni;
	key.ip = *ip;
	return bpf_map_lookup_elem(&neighbours, &key);
}

/* Gives the frame the MAC address of its destination's owner, in `eth` and itself; other values than GO_ON
 * are what the program returns, or CARRY. */
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
	if (n && !n->known)
		return drop(skb, w, WEFT_NOBODY);
	key.vni = w.vni;
	*(__u16 *)key.pad = 0;
	if (n)
		copy_mac(key.mac, n->mac);
	if (!n || !bpf_map_lookup_elem(&fdb, &key)) {
		asked_ip(&key, w.vni, &dst);
		return missed(skb, vap, &key, WEFT_PUNT_ROUTE);
	}
	p = head(skb, ETH_LEN);
	if (!p)
		return drop(skb, w, WEFT_KERNEL);
	copy_mac(p->h_dest, key.mac);
	copy_mac(eth->h_dest, key.mac);
	return GO_ON;
}

#endif
