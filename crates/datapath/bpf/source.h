/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Whether what a tenant system sends is its own to send: IP packets, by their source and what they are. */
#ifndef WEFT_SOURCE_H
#define WEFT_SOURCE_H

static __always_inline bool owns(__u32 ifindex, const struct weft_vap *vap, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;

	if (is_v4(ip) ? ip->w[3] && ip->w[3] == vap->ip4 : !is_unspecified(ip) && same_ip(ip, &vap->ip6))
		return true;
	key.scope = ifindex;
	key.ip = *ip;
	return bpf_map_lookup_elem(&vap_ips, &key) != 0;
}

static __noinline int vap_ip4(struct __sk_buff *skb, struct weft_vap *vap, struct l4 *l4)
{
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct iphdr));
	struct weft_ip src;
	struct iphdr *ip;
	__be16 ports[2];
	struct where w;
	__u32 end;

	if (!vap || !l4)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!eth)
		return drop(skb, w, WEFT_MALFORMED);
	ip = (void *)(eth + 1);
	if (ip->version != 4 || ip->ihl < 5)
		return drop(skb, w, WEFT_MALFORMED);
	l4->off = ETH_LEN + ip->ihl * 4;
	l4->proto = ip->protocol;
	l4->later = (ip->frag_off & bpf_htons(0x1fff)) != 0;
	l4->direct = 1;
	l4->ecn = ip->tos & 3;
	/* What is beyond the packet's own length is padding, whatever it looks like. */
	end = packet_end(skb, bpf_ntohs(ip->tot_len), 0);
	if (end < l4->off || end > skb->len)
		return drop(skb, w, WEFT_MALFORMED);
	ip_from_v4(&src, ip->saddr);
	ports[0] = 0;
	ports[1] = 0;
	if (l4->proto == IPPROTO_UDP && !l4->later &&
	    (l4->off + 4 > end || bpf_skb_load_bytes(skb, l4->off, ports, 4)))
		return drop(skb, w, WEFT_MALFORMED);
	/* A DHCP client that has no address yet (RFC 2131 section 4.1). */
	if (!owns(skb->ifindex, vap, &src) &&
	    (src.w[3] || ports[0] != bpf_htons(68) || ports[1] != bpf_htons(67)))
		return drop(skb, w, WEFT_SPOOFED_IP);
	/* A server's, by either port: clients look at one, relays may use another for the other. */
	if (ports[0] == bpf_htons(67) || ports[1] == bpf_htons(68))
		return drop(skb, w, WEFT_ROGUE_DHCP);
	return ports[1] == bpf_htons(67) ? CONFINED : GO_ON;
}

static __noinline int vap_ip6(struct __sk_buff *skb, struct weft_vap *vap, struct l4 *l4)
{
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct ipv6hdr));
	struct ipv6hdr *ip;
	struct weft_ip src;
	__be16 ports[2];
	__u8 type = 0;
	struct where w;
	bool seen;
	__u32 end;

	if (!vap || !l4)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!eth)
		return drop(skb, w, WEFT_MALFORMED);
	ip = (void *)(eth + 1);
	if (ip->version != 6)
		return drop(skb, w, WEFT_MALFORMED);
	l4->ecn = ((__u8 *)ip)[1] >> 4 & 3;
	end = packet_end(skb, bpf_ntohs(ip->payload_len), sizeof(*ip));
	if (end > skb->len)
		return drop(skb, w, WEFT_MALFORMED);
	ip_from_v6(&src, &ip->saddr);
	if (!skip_extensions(skb, ip->nexthdr, end, l4))
		return drop(skb, w, WEFT_HIDDEN_L4);
	seen = !l4->later;
	ports[0] = 0;
	ports[1] = 0;
	if (seen && l4->proto == IPPROTO_ICMPV6 &&
	    (l4->off + 4 > end || bpf_skb_load_bytes(skb, l4->off, &type, 1)))
		return drop(skb, w, WEFT_HIDDEN_L4);
	if (seen && l4->proto == IPPROTO_UDP && (l4->off + 4 > end || bpf_skb_load_bytes(skb, l4->off, ports, 4)))
		return drop(skb, w, WEFT_HIDDEN_L4);
	/* An IPv4 address in that dress is nobody's here (RFC 4291 section 2.5.5.2). */
	if (is_v4(&src))
		return drop(skb, w, WEFT_SPOOFED_IP);
	if (!owns(skb->ifindex, vap, &src)) {
		/* `::` is for duplicate address detection and for MLD before it (RFC 3590). */
		bool mld = (type >= 130 && type <= 132) || type == 143;

		if (!is_unspecified(&src) || !(mld || (type == ND_NS && l4->direct)))
			return drop(skb, w, WEFT_SPOOFED_IP);
	}
	/* Neighbor Discovery has no business behind extension headers (RFC 6980). */
	if (type >= 133 && type <= 137 && !l4->direct)
		return drop(skb, w, WEFT_HIDDEN_L4);
	if (type == 134 || type == 137)
		return drop(skb, w, WEFT_ROGUE_ROUTER);
	if (ports[0] == bpf_htons(547) || ports[1] == bpf_htons(546))
		return drop(skb, w, WEFT_ROGUE_DHCP);
	if (type == ND_NS || type == ND_NA)
		return IS_ND;
	return type == 133 || ports[1] == bpf_htons(547) ? CONFINED : GO_ON;
}

/* An 802.3 frame with a SNAP header (RFC 1042): ARP or IP in another dress, which some stacks take. */
static __always_inline bool hides_protocol(struct __sk_buff *skb)
{
	__u8 llc[3];

	return bpf_skb_load_bytes(skb, ETH_LEN, llc, 3) || (llc[0] == 0xaa && llc[1] == 0xaa);
}

#endif
