/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What a tenant system asks and says by ARP and Neighbor Discovery. */
#ifndef WEFT_RESOLVE_H
#define WEFT_RESOLVE_H

/* RFC 826, RFC 5227. Returns true when the frame is unicast and goes on to its owner. */
static __noinline int vap_arp(struct __sk_buff *skb, struct weft_vap *vap)
{
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct arp));
	struct weft_ip spa, tpa;
	struct weft_heard *heard;
	struct weft_neighbour *n;
	struct where w;
	struct arp *arp;
	__u32 raw;
	bool probe;

	if (!vap)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!eth)
		return drop(skb, w, WEFT_MALFORMED);
	arp = (void *)(eth + 1);
	if (!is_arp(arp))
		return drop(skb, w, WEFT_MALFORMED);
	if (!same_mac(arp->sha, vap->mac))
		return drop(skb, w, WEFT_SPOOFED_ARP);
	__builtin_memcpy(&raw, arp->spa, 4);
	probe = !raw && arp->op == bpf_htons(1);
	ip_from_v4(&spa, raw);
	__builtin_memcpy(&raw, arp->tpa, 4);
	ip_from_v4(&tpa, raw);
	if (!probe && !owns(skb->ifindex, vap, &spa))
		return drop(skb, w, WEFT_SPOOFED_ARP);
	if (floods(vap->mode))
		return TC_ACT_OK;
	/* Whoever was answered with the MAC address of all NVEs asks that again when its entry grows old. */
	if (!(eth->h_dest[0] & 1) && !(arp->op == bpf_htons(1) && distributes(vap->mode) &&
				       is_anycast(eth->h_dest, vap->vni)))
		return TC_ACT_OK;
	if (arp->op != bpf_htons(1) || spa.w[3] == tpa.w[3]) {
		/* Where it was others have the MAC address of another NVE (RFC 7586). */
		if (translates(vap->mode) && arp->op == bpf_htons(1) && !probe)
			return ANNOUNCE;
		return drop(skb, w, WEFT_ANNOUNCEMENT);
	}
	if (owns(skb->ifindex, vap, &tpa))
		return drop(skb, w, WEFT_OWN_ADDRESS);
	n = find_neighbour(vap->vni, &tpa);
	if (!n && translates(vap->mode)) {
		heard = find_heard(vap->vni, &tpa);
		if (heard)
			return answer_arp(skb, w, heard->mac);
		/* What answers a probe names nobody it is for, and no NVE sends that on. */
		if (!probe)
			return ASK;
	}
	if (!n)
		return punt(skb, vap, WEFT_PUNT_ARP);
	if (!n->known)
		return drop(skb, w, WEFT_NOBODY);
	if (same_mac(n->mac, vap->mac))
		return drop(skb, w, WEFT_OWN_ADDRESS);
	return answer_arp(skb, w, n->mac);
}

/* One option: its length in octets, 0 if it does not add up, and what it says. Global, so that the
 * verifier looks at it once and takes its result for any number: its branches in a loop are too many. */
__noinline int nd_option(struct __sk_buff *skb, __u32 off, __u32 kind, __u64 mac)
{
	__u8 o[8];

	if (bpf_skb_load_bytes(skb, off, o, 8))
		return 0;
	if (o[0] != kind)
		return o[1] * 8;
	if (o[1] != 1)
		return 0;
	return 8 | OPTION_OF_KIND | (mac_number(o + 2) == mac ? 0 : OPTION_FOREIGN);
}

/* Whether every link-layer address option of `kind` names `mac`; -1 for options that do not add up
 * (RFC 4861 section 4.6) or an option that may not be there. */
static __always_inline int check_options(struct __sk_buff *skb, __u32 end, __u8 kind, const __u8 *mac, bool dad)
{
	__u32 off = ETH_LEN + sizeof(struct ipv6hdr) + NS_LEN, option;
	__u64 own = mac_number(mac);
	int i;

	for (i = 0; i < 8; i++) {
		if (off == end)
			return 0;
		option = off + 8 > end ? 0 : nd_option(skb, off, kind, own);
		if (!(option & OPTION_LEN) || (dad && option & OPTION_OF_KIND))
			return -1;
		if (option & OPTION_FOREIGN)
			return 1;
		off += option & OPTION_LEN;
	}
	return off == end ? 0 : -1;
}

/* RFC 4861. As vap_arp; ANSWER: that the address has the MAC address which is in `found` then. */
static __noinline int vap_nd(struct __sk_buff *skb, struct weft_vap *vap, struct eth *found)
{
	struct nd *nd = head(skb, sizeof(*nd));
	struct weft_heard *heard;
	struct weft_neighbour *n;
	struct weft_ip src, target;
	struct where w;
	bool dad, link_local, ns, group;
	__u32 end;
	int bad;

	if (!vap || !found)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!nd)
		return drop(skb, w, WEFT_MALFORMED);
	ns = nd->type == ND_NS;
	group = nd->eth.h_dest[0] & 1;
	ip_from_v6(&src, &nd->ip.saddr);
	ip_from_v6(&target, &nd->target);
	dad = is_unspecified(&src);
	end = ETH_LEN + sizeof(struct ipv6hdr) + bpf_ntohs(nd->ip.payload_len);
	if (nd->ip.hop_limit != 255 || nd->code || (target.w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
	    end < sizeof(*nd) || end > skb->len || (dad && !group))
		return drop(skb, w, WEFT_MALFORMED);
	bad = check_options(skb, end, ns ? 1 : 2, vap->mac, dad);
	if (bad < 0)
		return drop(skb, w, WEFT_MALFORMED);
	if (bad)
		return drop(skb, w, WEFT_SPOOFED_ND);
	if (!ns) {
		if (!owns(skb->ifindex, vap, &target))
			return drop(skb, w, WEFT_SPOOFED_ND);
		if (group && translates(vap->mode))
			return ANNOUNCE;
		if (group && !floods(vap->mode))
			return drop(skb, w, WEFT_ANNOUNCEMENT);
		return TC_ACT_OK;
	}
	link_local = (target.w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
	if (floods(vap->mode)) {
		/* Others may object, and the agent takes the address for it. */
		return dad && link_local && !owns(skb->ifindex, vap, &target) ? TELL : GO_ON;
	}
	if (!group && !(distributes(vap->mode) && is_anycast(nd->eth.h_dest, vap->vni)))
		return TC_ACT_OK;
	if (owns(skb->ifindex, vap, &target))
		return drop(skb, w, WEFT_OWN_ADDRESS);
	n = find_neighbour(vap->vni, &target);
	if (n && n->known) {
		if (same_mac(n->mac, vap->mac))
			return drop(skb, w, WEFT_OWN_ADDRESS);
		copy_mac(found->h_dest, n->mac);
		return ANSWER;
	}
	if (!n && translates(vap->mode)) {
		heard = find_heard(vap->vni, &target);
		if (heard) {
			copy_mac(found->h_dest, heard->mac);
			return ANSWER;
		}
		/* What answers an unspecified source is for all, and no NVE sends that on. */
		if (!dad)
			return ASK;
	}
	if (dad && link_local)
		return PUNTS | WEFT_PUNT_LINK_LOCAL;
	if (n)
		return drop(skb, w, WEFT_NOBODY);
	return PUNTS | WEFT_PUNT_ND;
}

#endif
