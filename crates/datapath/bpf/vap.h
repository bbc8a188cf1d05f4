/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What a tenant system sends: who is this, may it, where to. */
#ifndef WEFT_VAP_H
#define WEFT_VAP_H

static __always_inline bool owns(__u32 ifindex, const struct weft_vap *vap, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;

	if (is_v4(ip) ? ip->w[3] && ip->w[3] == vap->ip4 : !is_unspecified(ip) && same_ip(ip, &vap->ip6))
		return true;
	key.scope = ifindex;
	key.ip = *ip;
	return bpf_map_lookup_elem(&vap_ips, &key) != 0;
}

/* Larger than the tenant MTU, as IP packet; for a GSO frame the packets it will become. */
static __always_inline bool too_big(struct __sk_buff *skb, const struct weft_vap *vap, const struct l4 *l4)
{
	__u32 gso = skb->gso_size, l4_len = 8;
	__u8 doff;

	if (!gso)
		return skb->len - ETH_LEN > vap->mtu;
	if (l4->proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, l4->off + 12, &doff, 1))
			return true;
		l4_len = (doff >> 4) * 4;
	}
	return gso + l4->off - ETH_LEN + l4_len > vap->mtu;
}

/* No ICMP errors about ICMP errors, nor about later IPv4 fragments (RFC 1122 section 3.2.2). */
static __always_inline bool may_answer(struct __sk_buff *skb, bool v4, const struct l4 *l4)
{
	__u8 type;

	if (v4 && l4->later)
		return false;
	if (l4->later || l4->proto != (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return true;
	if (bpf_skb_load_bytes(skb, l4->off, &type, 1))
		return false;
	if (!v4)
		return type >= 128 && type != 137;
	return type != 3 && type != 4 && type != 5 && type != 11 && type != 12;
}

static __always_inline void touch(struct weft_location *at, __u64 now)
{
	if (now - at->last_used >= SECOND)
		at->last_used = now;
}

/* A drop of a frame because of who it is for. */
static __noinline int drop_for(struct __sk_buff *skb, const struct where *at, __u32 reason)
{
	struct where w;

	if (!at)
		return TC_ACT_SHOT;
	w = *at;
	w.direction = WEFT_IN;
	return drop(skb, w, reason);
}

/* Unicast that passed every check. `proto` is IP's only if the header was looked at. */
static __always_inline int forward(struct __sk_buff *skb, struct weft_vap *vap, struct where *w,
				   struct eth *eth, const struct l4 *l4, bool again)
{
	__be16 proto = eth->h_proto;
	bool v4 = proto == bpf_htons(ETH_P_IP), ip = v4 || proto == bpf_htons(ETH_P_IPV6);
	struct weft_config *cfg = get_config();
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct weft_ip *rloc = 0;
	struct weft_settings *how;
	struct weft_away *gone;
	bool everywhere = false, learns;
	struct weft_learned *seen;
	struct weft_location *at;
	struct weft_count amount;
	struct weft_vap *to = 0;
	struct weft_vn_mac key;
	__u32 ifindex = 0;
	int ret = GO_ON;

	if (distributes(vap->mode) && is_anycast(eth->h_dest, w->vni)) {
		ret = route_inside(skb, vap, eth);
		if (ret != GO_ON && ret != CARRY)
			return ret;
	}
	key.vni = w->vni;
	copy_mac(key.mac, eth->h_dest);
	*(__u16 *)key.pad = 0;
	at = bpf_map_lookup_elem(&fdb, &key);
	if (!cfg)
		return drop(skb, *w, WEFT_NO_RLOC);
	learns = floods(vap->mode) || translates(vap->mode);
	if (!at || (learns && at->kind != WEFT_AT_LOCAL)) {
		seen = find_learned(cfg, &key, now);
		if (seen)
			rloc = &seen->rloc;
		/* The VN learned from frames until its mode changed: the frame finds its way while it is asked. */
		if (seen && !learns && first_this_second(&key))
			punt(skb, vap, WEFT_PUNT_MAC);
	}
	if (!at && !rloc && ret != CARRY) {
		gone = find_away(&key);
		if (gone)
			rloc = &gone->rloc;
		/* Until the Oracle has said where it is. */
		if (gone && !learns && first_this_second(&key))
			punt(skb, vap, WEFT_PUNT_MAC);
	}
	if (!at && !rloc && ret != CARRY) {
		everywhere = floods(vap->mode);
		if (!everywhere && !learns) {
			ret = missed(skb, vap, &key, WEFT_PUNT_MAC_HELD);
			if (ret != CARRY)
				return ret;
		} else if (!everywhere) {
			if (first_this_second(&key))
				return punt(skb, vap, WEFT_PUNT_MAC);
			return drop(skb, *w, WEFT_UNKNOWN_MAC);
		}
	}
	if (ret == CARRY) {
		how = bpf_map_lookup_elem(&settings, &key.vni);
		if (!how)
			return drop(skb, *w, WEFT_UNKNOWN_MAC);
		rloc = &how->gateway;
		count(skb, w->vni, WEFT_BY_GATEWAY, w->path, WEFT_OUT);
	} else if (at && !rloc) {
		touch(at, now);
		if (at->kind == WEFT_AT_REMOTE)
			rloc = at->other ? rloc_of(skb, at) : &at->rloc;
	}
	if (everywhere) {
		/* No one place. */
	} else if (rloc) {
		if (!(cfg->families & (is_v4(rloc) ? WEFT_FAMILY_V4 : WEFT_FAMILY_V6)))
			return drop(skb, *w, WEFT_NO_RLOC);
	} else if (at && at->kind == WEFT_AT_LOCAL) {
		/* Read once: the entry may be another's a moment later. */
		ifindex = at->ifindex;
		if (ifindex == skb->ifindex)
			return drop(skb, *w, WEFT_TO_SELF);
		to = bpf_map_lookup_elem(&vaps, &ifindex);
		if (!to || to->vni != w->vni)
			return drop(skb, *w, WEFT_NO_SUCH_TS);
		if (!(to->flags & WEFT_VAP_ACTIVATED))
			return drop(skb, *w, WEFT_NOT_ACTIVATED);
	} else {
		return drop(skb, *w, WEFT_NOWHERE);
	}
	if (is_traced(skb))
		trace_tell(skb, WEFT_STEP_LOCATION, ret == CARRY ? WEFT_STEP_BY_GATEWAY : at != 0, ifindex, rloc);
	if (too_big(skb, vap, l4)) {
		if (is_traced(skb) || !ip || !may_answer(skb, v4, l4))
			return drop(skb, *w, WEFT_TOO_BIG);
		return v4 ? answer_frag_needed(skb, vap, l4) : answer_packet_too_big(skb, vap, l4);
	}
	if (everywhere)
		return replicate(skb, vap, again ? TO_VAPS | TO_MEMBERS | TO_AGAIN : TO_VAPS | TO_MEMBERS);
	if (to && to->policy && refuses(skb, to, ifindex, WEFT_IN))
		return drop_for(skb, w, WEFT_DENIED);
	if (rloc && translates(vap->mode)) {
		ret = translate_out(skb, w, eth, l4);
		if (ret != GO_ON)
			return ret;
	}
	if (sends_too_much(skb, vap))
		return drop(skb, *w, WEFT_RATE_LIMITED);
	if (to && gets_too_much(skb, to))
		return drop_for(skb, w, WEFT_RATE_LIMITED);
	/* A gateway takes what has few hops left for what another one has carried. */
	w->ttl = ret == CARRY ? OUTER_TTL : vap->ttl;
	w->ds = outer_ds(skb, vap);
	if (again)
		return send_again(skb, w, rloc, ifindex);
	amount = amount_of(skb, 0);
	if (to) {
		count_hot(amount, w->slot, WEFT_HOT_LOCAL + (w->path & 1));
		return deliver(skb, to, ifindex, WEFT_LOCAL);
	}
	if (!rloc)
		return drop(skb, *w, WEFT_NOWHERE);
	if (is_traced(skb)) {
		ret = trace_leaves(skb, rloc);
		if (ret != GO_ON)
			return ret;
	}
	/* bpf_skb_adjust_room takes IP only. A trace's id is written here. */
	if ((w->path == WEFT_PATH_DEVICE && !is_traced(skb)) || !ip)
		return encap_device(skb, w, cfg, rloc, &amount);
	w->sport = source_port(skb, vap);
	if (is_v4(rloc))
		return encap_direct4(skb, w, cfg, rloc, eth, l4->ecn, now, &amount);
	return encap_direct6(skb, w, cfg, rloc, eth, l4->ecn, now, &amount);
}

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

/* What comes in before it may. Where it is waited for, since its tenant system moves here, the agent is told, once a
 * second; not of a trace, which nobody there has sent. */
static __noinline int not_activated(struct __sk_buff *skb, struct weft_vap *vap)
{
	struct weft_vn_mac key;
	struct eth *p = 0;
	struct where w;

	if (!vap)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (vap->flags & WEFT_VAP_WAITS && !skb->vlan_present && !is_traced(skb))
		p = head(skb, ETH_LEN);
	if (!p || is_vlan(p->h_proto) || !same_mac(p->h_source, vap->mac))
		return drop(skb, w, WEFT_NOT_ACTIVATED);
	key.vni = skb->ifindex;
	*(__u32 *)key.mac = 0;
	*(__u16 *)(key.mac + 4) = 0;
	*(__u16 *)key.pad = 5;
	if (!first_this_second(&key))
		return drop(skb, w, WEFT_NOT_ACTIVATED);
	return punt(skb, vap, WEFT_PUNT_FIRST);
}

static __always_inline int vap_frame(struct __sk_buff *skb, bool again)
{
	__u32 ifindex = skb->ifindex;
	struct weft_vap *vap = bpf_map_lookup_elem(&vaps, &ifindex);
	struct eth *p, eth;
	struct where w;
	struct l4 l4;
	int ret = GO_ON;

	w.vni = 0;
	w.slot = 0;
	w.path = 0;
	w.direction = WEFT_OUT;
	w.ttl = 0;
	w.ds = 0;
	w.sport = 0;
	if (!vap)
		return is_knock(skb) ? knocked(skb) : drop(skb, w, WEFT_NO_VAP);
	w.vni = vap->vni;
	w.slot = vap->slot;
	w.path = vap->path;
	if (!(vap->flags & WEFT_VAP_ACTIVATED))
		return not_activated(skb, vap);
	p = head(skb, ETH_LEN);
	if (!p)
		return drop(skb, w, WEFT_MALFORMED);
	eth = *p;
	if (skb->vlan_present || is_vlan(eth.h_proto))
		return drop(skb, w, WEFT_VLAN_TAGGED);
	if (!same_mac(eth.h_source, vap->mac))
		return drop(skb, w, WEFT_SPOOFED_MAC);
	l4.off = ETH_LEN;
	l4.proto = 0;
	l4.later = 0;
	l4.direct = 0;
	l4.ecn = 0;
	if (bpf_ntohs(eth.h_proto) < ETH_P_802_3_MIN && hides_protocol(skb))
		return drop(skb, w, WEFT_HIDDEN_L4);
	if (eth.h_proto == bpf_htons(ETH_P_IP))
		ret = vap_ip4(skb, vap, &l4);
	else if (eth.h_proto == bpf_htons(ETH_P_IPV6))
		ret = vap_ip6(skb, vap, &l4);
	else if (eth.h_proto == bpf_htons(ETH_P_ARP))
		ret = vap_arp(skb, vap);
	if (ret == IS_ND)
		ret = vap_nd(skb, vap, &eth);
	if (ret == ANSWER)
		return answer_ns(skb, vap, eth.h_dest);
	if (ret > PUNTS)
		return punt(skb, vap, ret - PUNTS);
	if (ret == TELL) {
		punt(skb, vap, WEFT_PUNT_LINK_LOCAL);
		ret = GO_ON;
	}
	if (ret == ASK) {
		ret = ask_members(skb, vap, eth.h_proto == bpf_htons(ETH_P_ARP));
		return ret == GO_ON ? replicate(skb, vap, again ? TO_MEMBERS | TO_AGAIN : TO_MEMBERS) : ret;
	}
	if (ret == ANNOUNCE) {
		if (too_big(skb, vap, &l4))
			return drop(skb, w, WEFT_TOO_BIG);
		return replicate(skb, vap, TO_VAPS | TO_MEMBERS | (again ? TO_AGAIN : 0) |
						   (eth.h_proto == bpf_htons(ETH_P_ARP) ? SAYS_IN_ARP : SAYS_IN_NA));
	}
	if (ret != GO_ON && ret != CONFINED)
		return ret;
	if (eth.h_dest[0] & 1) {
		if (!floods(vap->mode) && (!(vap->mode & WEFT_REPLICATES) || ret == CONFINED))
			return drop(skb, w, WEFT_BUM_OFF);
		if (narrows(vap->mode)) {
			ret = vap_membership(skb, vap, &l4, eth.h_proto);
			if (ret != GO_ON)
				return ret;
		}
		if (vap->policy && refuses(skb, vap, ifindex, WEFT_OUT))
			return drop(skb, w, WEFT_DENIED);
		if (too_big(skb, vap, &l4))
			return drop(skb, w, WEFT_TOO_BIG);
		ret = TO_VAPS | TO_MEMBERS | TO_RECEIVERS;
		return replicate(skb, vap, again ? ret | TO_AGAIN : ret);
	}
	if (is_traced(skb))
		trace_tell(skb, WEFT_STEP_CHECKED, 0, 0, 0);
	ret = vap->policy ? refuses(skb, vap, ifindex, again ? WEFT_OUT | POLICY_AGAIN : WEFT_OUT) : 0;
	if (ret)
		return drop(skb, w, ret);
	return forward(skb, vap, &w, &eth, &l4, again);
}

#endif
