/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What the underlay brings: from whom, for whom, and the liveness echo. */
#ifndef WEFT_FABRIC_H
#define WEFT_FABRIC_H

/* To whoever comes next on this device, ours or not; at last the host, whose VXLAN device may have it
 * then, put together from fragments, out of a VLAN's priority tag or of IPsec. The tag says that it came
 * over an uplink: what any other device brings to the VXLAN port, a tenant's too, is a stranger's. */
static __always_inline int pass(struct __sk_buff *skb)
{
	skb->tc_index = WEFT_TAG;
	return say(skb, WEFT_DID_PASS, 0, 0, TC_ACT_UNSPEC);
}

/* The fence. Frames whose source is another NVE's by an Oracle's latest word pass for a moment: they
 * were under way when it moved, or it has moved to where they come from and word of that is under way.
 * After that their sender does not hold it, if the agent has said since that it would have heard of that: without an
 * Oracle nobody knows better, nor does an agent that stands still. Then they pass. */
static __always_inline bool fenced(const struct weft_config *cfg, struct weft_location *at)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	/* Signed: another CPU may have written a later time since. */
	if (!at->contested || (__s64)(now - at->contested_last) >= (__s64)WEFT_FENCE_FORGETS)
		at->contested = now;
	at->contested_last = now;
	return (__s64)(cfg->vouched - at->contested) >= (__s64)WEFT_FENCE_AFTER && now < cfg->fence_until;
}

/* Both paths' decision about a frame that a peer sent; it is at `off`, 0 when it is stripped. */
static __always_inline void admit(struct __sk_buff *skb, struct inward *in, const struct weft_config *cfg,
				  __u32 vni, const struct weft_ip *from, __u32 node, const struct eth *eth,
				  __u32 off)
{
	struct weft_location *at, *other = 0;
	struct weft_vn_mac key, source;
	bool redirected;
	int lets;

	in->to = 0;
	in->ifindex = 0;
	in->reason = 0;
	in->moved = false;
	in->learn = false;
	in->asks = false;
	in->carry = false;
	in->away = false;
	in->restore = false;
	in->group = eth->h_dest[0] & 1;
	if (is_vlan(eth->h_proto)) {
		in->reason = WEFT_VLAN_TAGGED;
		return;
	}
	if (in->group) {
		lets = lets_in(skb, vni, eth->h_proto, !off);
		if (lets == STAYS_OUT) {
			in->reason = WEFT_INNER_GROUP;
			return;
		}
		in->asks = lets == TO_OWNER;
	}
	if (eth->h_source[0] & 1) {
		in->reason = WEFT_MALFORMED;
		return;
	}
	/* Who is reached through an NVE is learned from that address: each says its own. */
	if (is_node(eth->h_source) && node_of(eth->h_source) != node) {
		in->reason = WEFT_SPOOFED_MAC;
		return;
	}
	source.vni = vni;
	copy_mac(source.mac, eth->h_source);
	*(__u16 *)source.pad = 0;
	at = bpf_map_lookup_elem(&fdb, &source);
	if (at && at->kind == WEFT_AT_LOCAL) {
		in->reason = WEFT_FENCED;
		return;
	}
	if (at && at->kind == WEFT_AT_REMOTE && elsewhere(&at->rloc, from, node) && !by_gateway(vni, node))
		other = at;
	at = 0;
	if (!in->group) {
		key.vni = vni;
		copy_mac(key.mac, eth->h_dest);
		*(__u16 *)key.pad = 0;
		at = bpf_map_lookup_elem(&fdb, &key);
	}
	if (at && at->kind == WEFT_AT_LOCAL) {
		in->ifindex = at->ifindex;
		in->to = bpf_map_lookup_elem(&vaps, &in->ifindex);
	}
	/* Where it moved here from others' frames for it come from too: that says nothing of where those are. */
	redirected = in->to && in->to->previous && in->to->previous == node;
	if (other && !redirected) {
		if (fenced(cfg, other)) {
			in->reason = WEFT_FENCED;
			bpf_map_delete_elem(&learned, &source);
			return;
		}
		in->moved = true;
	}
	if (in->group) {
		in->learn = !off && (in->asks ? is_node(eth->h_source) : learns(vni));
		return;
	}
	if (!at && same_mac(eth->h_dest, cfg->node_mac)) {
		restore(skb, in, vni, eth, off);
		return;
	}
	if (!in->to || in->to->vni != vni) {
		in->reason = WEFT_NO_SUCH_TS;
		in->learn = learns(vni);
		in->away = (!at || at->kind != WEFT_AT_LOCAL) && find_away(&key);
		in->carry = !in->away && carries(vni);
	} else if (!(in->to->flags & WEFT_VAP_ACTIVATED)) {
		in->reason = WEFT_NOT_ACTIVATED;
	} else {
		in->learn = floods(in->to->mode) && !redirected;
	}
}

/* Back to where it came from, without the agent: an answer means that this host's data path lives. */
static __always_inline int echo(struct __sk_buff *skb, struct where w, struct weft_config *cfg, bool v6)
{
	const __u32 udp_off = v6 ? ETH_LEN + sizeof(struct ipv6hdr) : ETH_LEN + sizeof(struct iphdr);
	const __u32 kind_off = udp_off + sizeof(struct udphdr) + WEFT_ECHO_KIND;
	struct bpf_fib_lookup p;
	struct bpf_redir_neigh nh;
	struct udphdr *udp;
	__be16 port;
	__u8 *data;
	__u32 i;

	__builtin_memset(&p, 0, sizeof(p));
	count(skb, 0, WEFT_ECHOED, w.path, w.direction);
	/* The kind's octet is the first of its 16-bit word. The helper knows whether the checksum is
	 * still to be made by somebody's hardware. */
	if (bpf_l4_csum_replace(skb, udp_off + 6, bpf_htons(WEFT_ECHO_REQUEST << 8),
				bpf_htons(WEFT_ECHO_REPLY << 8), BPF_F_MARK_MANGLED_0 | 2))
		return drop(skb, w, WEFT_KERNEL);
	data = head(skb, v6 ? ETH_LEN + 40 + 8 + WEFT_ECHO_LEN : ETH_LEN + 20 + 8 + WEFT_ECHO_LEN);
	if (!data)
		return drop(skb, w, WEFT_KERNEL);
	data[kind_off] = WEFT_ECHO_REPLY;
	udp = (void *)(data + udp_off);
	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
	if (v6) {
		struct ipv6hdr *ip = (void *)(data + ETH_LEN);

		p.family = 10;
		for (i = 0; i < 4; i++) {
			p.ipv6_src[i] = ip->daddr.in6_u.u6_addr32[i];
			p.ipv6_dst[i] = ip->saddr.in6_u.u6_addr32[i];
			ip->saddr.in6_u.u6_addr32[i] = p.ipv6_src[i];
			ip->daddr.in6_u.u6_addr32[i] = p.ipv6_dst[i];
		}
		ip->hop_limit = OUTER_TTL;
	} else {
		struct iphdr *ip = (void *)(data + ETH_LEN);

		p.family = 2;
		p.ipv4_src = ip->daddr;
		p.ipv4_dst = ip->saddr;
		ip->saddr = p.ipv4_src;
		ip->daddr = p.ipv4_dst;
		ip->ttl = OUTER_TTL;
		ip->check = 0;
		ip->check = fold(bpf_csum_diff(0, 0, (void *)ip, sizeof(*ip), 0));
	}
	p.sport = bpf_htons(VXLAN_PORT);
	p.dport = port;
	if (next_hop(skb, &p, cfg->vxlan_ifindex))
		return say(skb, WEFT_DID_REPLY, WEFT_ECHOED, skb->ifindex,
			   bpf_redirect_neigh(skb->ifindex, 0, 0, 0));
	set_neigh(&nh, &p);
	return say(skb, WEFT_DID_REPLY, WEFT_ECHOED, p.ifindex, bpf_redirect_neigh(p.ifindex, &nh, sizeof(nh), 0));
}

static __always_inline bool is_echo_request(struct __sk_buff *skb, __u32 off)
{
	__u8 d[WEFT_ECHO_LEN + 1];

	if (bpf_skb_load_bytes(skb, off, d, WEFT_ECHO_LEN))
		return false;
	return !(d[0] | d[1] | d[2] | d[3] | d[4] | d[5] | d[6] | d[7]) && d[8] == 'W' && d[9] == 'E' &&
	       d[10] == 'F' && d[11] == 'T' && d[12] == 'E' && d[13] == 'C' && d[14] == 'H' && d[15] == 'O' &&
	       d[WEFT_ECHO_KIND] == WEFT_ECHO_REQUEST;
}

#define ECN_NONE 0
#define ECT1 1
#define ECT0 2
#define ECN_CE 3
#define ECN_REFUSED 4

/* What the inner IP header's ECN field becomes by what was seen outside (RFC 6040 section 4.2), or
 * ECN_REFUSED: its sender does not understand congestion marks, so the packet's loss is the signal. */
static __always_inline __u32 merged_ecn(struct __sk_buff *skb, __u32 ip_off, bool inner4, __u32 outer)
{
	__u32 inner;
	__u8 two[2];

	if (bpf_skb_load_bytes(skb, ip_off, two, 2))
		return ECN_REFUSED;
	inner = inner4 ? two[1] & 3 : two[1] >> 4 & 3;
	if (outer == ECN_CE)
		return inner == ECN_NONE ? ECN_REFUSED : ECN_CE;
	return outer == ECT1 && inner == ECT0 ? ECT1 : inner;
}

static __always_inline void set_ecn(struct __sk_buff *skb, bool inner4, __u32 ecn)
{
	__be16 was, is;

	if (bpf_skb_load_bytes(skb, ETH_LEN, &was, 2))
		return;
	is = inner4 ? (was & bpf_htons(0xfffc)) | bpf_htons(ecn) : (was & bpf_htons(0xffcf)) | bpf_htons(ecn << 4);
	if (is == was)
		return;
	/* The IPv4 header's sum stays what it was, IPv6 has none: then a sum over the packet changes. */
	if (inner4)
		bpf_l3_csum_replace(skb, ETH_LEN + 10, was, is, 2);
	bpf_skb_store_bytes(skb, ETH_LEN, &is, 2, inner4 ? 0 : BPF_F_RECOMPUTE_CSUM);
}

/* A UDP datagram for our RLOC's VXLAN port. */
static __always_inline int tunnelled(struct __sk_buff *skb, struct weft_config *cfg, const struct weft_ip *from,
				     bool v6, __u32 udp_len, __u32 outer_ecn)
{
	const __u32 off = v6 ? ETH_LEN + 40 + 8 : ETH_LEN + 20 + 8;
	struct weft_peer *peer = bpf_map_lookup_elem(&peers, from);
	__u32 may = peer ? peer->may : 0, node = peer ? peer->node : 0, vni, ecn = ECN_NONE;
	struct weft_count amount;
	struct inward in;
	struct eth inner;
	struct where w;
	bool inner4;
	__u8 *data;
	int ret;

	w.vni = 0;
	w.path = WEFT_PATH_DIRECT;
	w.direction = WEFT_IN;
	if (!may)
		return drop(skb, w, WEFT_FOREIGN_RLOC);
	data = head(skb, v6 ? ETH_LEN + 40 + 8 + 8 + ETH_LEN : ETH_LEN + 20 + 8 + 8 + ETH_LEN);
	if (!data)
		return drop(skb, w, may & WEFT_PEER_NVE ? WEFT_BAD_VXLAN : WEFT_FOREIGN_RLOC);
	if (!(data[off] & VXLAN_I)) {
		if (may & WEFT_PEER_ORACLE && udp_len == 8 + WEFT_ECHO_LEN && is_echo_request(skb, off))
			return echo(skb, w, cfg, v6);
		return drop(skb, w, may & WEFT_PEER_NVE ? WEFT_BAD_VXLAN : WEFT_FOREIGN_RLOC);
	}
	if (!(may & WEFT_PEER_NVE))
		return drop(skb, w, WEFT_FOREIGN_RLOC);
	vni = data[off + 4] << 16 | data[off + 5] << 8 | data[off + 6];
	if (!vni)
		return drop(skb, w, WEFT_BAD_VXLAN);
	w.vni = vni;
	if (data[off + 1] | data[off + 2] | data[off + 3]) {
		trace_arrives(skb, from, vni, off);
		data = head(skb, v6 ? ETH_LEN + 40 + 8 + 8 + ETH_LEN : ETH_LEN + 20 + 8 + 8 + ETH_LEN);
		if (!data)
			return drop(skb, w, WEFT_KERNEL);
	}
	inner = *(struct eth *)(data + off + 8);
	admit(skb, &in, cfg, vni, from, node, &inner, off + 8);
	if (in.carry || in.away)
		return pass(skb); /* by the VXLAN device to from_overlay, which sends it on */
	if (in.reason) {
		if (in.learn)
			learn(vni, &inner, from);
		if (in.reason == WEFT_NO_SUCH_TS)
			report(skb, vni, from, off + 8);
		return drop_inward(skb, w, in.reason);
	}
	if (in.group || !in.to)
		return pass(skb); /* by the VXLAN device to from_overlay, which makes the copies */
	if (in.restore)
		copy_mac(inner.h_dest, in.to->mac);
	inner4 = inner.h_proto == bpf_htons(ETH_P_IP);
	if (in.to->path == WEFT_PATH_DEVICE || (!inner4 && inner.h_proto != bpf_htons(ETH_P_IPV6)) ||
	    (in.to->kind == WEFT_KIND_TAP && skb->gso_size))
		return pass(skb); /* by the VXLAN device to from_overlay, which counts */
	if (skb->len < off + 8 + ETH_LEN + (inner4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
		return drop(skb, w, WEFT_MALFORMED); /* adjust_room would refuse it */
	if (outer_ecn & 1) {
		ecn = merged_ecn(skb, off + 8 + ETH_LEN, inner4, outer_ecn);
		if (ecn == ECN_REFUSED)
			return drop(skb, w, WEFT_ECN_LOST);
	}
	amount = amount_of(skb, off + 8);
	if (v6)
		ret = bpf_skb_adjust_room(skb, -(__s32)GROW6, BPF_ADJ_ROOM_MAC,
					  BPF_F_ADJ_ROOM_FIXED_GSO | (inner4 ? DECAP_L3_IPV4 : 0));
	else
		ret = bpf_skb_adjust_room(skb, -(__s32)GROW4, BPF_ADJ_ROOM_MAC,
					  BPF_F_ADJ_ROOM_FIXED_GSO | (inner4 ? 0 : DECAP_L3_IPV6));
	if (ret)
		return drop(skb, w, WEFT_KERNEL);
	data = head(skb, ETH_LEN);
	if (!data)
		return drop(skb, w, WEFT_KERNEL);
	*(struct eth *)data = inner;
	if (outer_ecn & 1)
		set_ecn(skb, inner4, ecn);
	if (in.learn)
		learn(vni, &inner, from);
	if (in.moved)
		count(skb, vni, WEFT_SRC_MOVED, w.path, w.direction);
	if (is_refused(skb, in.to, in.ifindex, WEFT_IN))
		return drop(skb, w, WEFT_DENIED);
	if (gets_too_much(skb, in.to))
		return drop(skb, w, WEFT_RATE_LIMITED);
	count_hot(amount, in.to->slot, WEFT_HOT_DELIVERED + WEFT_PATH_DIRECT);
	return deliver(skb, in.to, in.ifindex, WEFT_DELIVERED);
}

/* Fragments, IP options and extension headers are the kernel's to put together; the VXLAN device
 * then has them. */
static __always_inline int underlay_frame(struct __sk_buff *skb)
{
	struct weft_config *cfg = get_config();
	struct weft_ip from, to;
	struct udphdr *udp;
	void *data;

	if (!cfg || skb->vlan_present)
		return pass(skb);
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip;

		data = head(skb, ETH_LEN + sizeof(*ip) + sizeof(*udp));
		if (!data)
			return pass(skb);
		ip = data + ETH_LEN;
		udp = (void *)(ip + 1);
		if (*(__u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(0x3fff) ||
		    udp->dest != bpf_htons(VXLAN_PORT) || !(cfg->families & WEFT_FAMILY_V4) ||
		    ip->daddr != cfg->rloc4.w[3])
			return pass(skb);
		ip_from_v4(&from, ip->saddr);
		return tunnelled(skb, cfg, &from, false, bpf_ntohs(udp->len), ip->tos & 3);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip;

		data = head(skb, ETH_LEN + sizeof(*ip) + sizeof(*udp));
		if (!data)
			return pass(skb);
		ip = data + ETH_LEN;
		udp = (void *)(ip + 1);
		if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP || udp->dest != bpf_htons(VXLAN_PORT) ||
		    !(cfg->families & WEFT_FAMILY_V6))
			return pass(skb);
		ip_from_v6(&to, &ip->daddr);
		if (!same_ip(&to, &cfg->rloc6))
			return pass(skb);
		ip_from_v6(&from, &ip->saddr);
		return tunnelled(skb, cfg, &from, true, bpf_ntohs(udp->len), ((__u8 *)ip)[1] >> 4 & 3);
	}
	return pass(skb);
}

/* What the VXLAN device stripped. Nothing goes from there to the host. */
static __always_inline int overlay_frame(struct __sk_buff *skb)
{
	struct weft_config *cfg = get_config();
	struct weft_peer *peer;
	struct eth *p, inner;
	struct outer outer;
	struct inward in;
	struct where w;
	int ret;

	w.vni = 0;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	if (!cfg)
		return drop(skb, w, WEFT_NO_RLOC);
	if (skb->tc_index != WEFT_TAG)
		return drop(skb, w, WEFT_OTHER_LINK);
	if (!read_outer(skb, &outer))
		return drop(skb, w, WEFT_BAD_VXLAN);
	peer = bpf_map_lookup_elem(&peers, &outer.from);
	if (!peer || !(peer->may & WEFT_PEER_NVE))
		return drop(skb, w, WEFT_FOREIGN_RLOC);
	if (!outer.vni)
		return drop(skb, w, WEFT_BAD_VXLAN);
	w.vni = outer.vni;
	p = head(skb, ETH_LEN);
	if (!p)
		return drop_inward(skb, w, WEFT_MALFORMED);
	inner = *p;
	if (skb->vlan_present)
		return drop_inward(skb, w, WEFT_VLAN_TAGGED);
	admit(skb, &in, cfg, w.vni, &outer.from, peer->node, &inner, 0);
	if (in.learn)
		learn(w.vni, &inner, &outer.from);
	if (in.away || in.carry) {
		ret = in.away ? redirect(skb, &outer, &inner) : carry(skb, &outer, &inner);
		if (ret == ONWARD)
			return trace_onward(skb, &outer, &inner, in.away ? WEFT_REDIRECTED : WEFT_BY_GATEWAY);
		return ret == HERE ? carry_here(skb, w.vni, &inner, outer.ttl) : ret;
	}
	if (in.reason == WEFT_NO_SUCH_TS)
		report(skb, w.vni, &outer.from, 0);
	if (in.reason)
		return drop_inward(skb, w, in.reason);
	if (in.moved)
		count(skb, w.vni, WEFT_SRC_MOVED, w.path, w.direction);
	if (in.asks) {
		ret = ask_owner(skb, w.vni, &inner);
		if (ret != GO_ON)
			return ret;
	}
	if (in.group || !in.to)
		return spread(skb, w.vni);
	if (in.restore &&
	    (bpf_skb_store_bytes(skb, 0, in.to->mac, 6, 0) ||
	     (inner.h_proto == bpf_htons(ETH_P_ARP) && bpf_skb_store_bytes(skb, ETH_LEN + 18, in.to->mac, 6, 0))))
		return drop(skb, w, WEFT_KERNEL);
	if (is_refused(skb, in.to, in.ifindex, WEFT_IN))
		return drop(skb, w, WEFT_DENIED);
	if (gets_too_much(skb, in.to))
		return drop(skb, w, WEFT_RATE_LIMITED);
	count_hot(amount_of(skb, 0), in.to->slot, WEFT_HOT_DELIVERED + WEFT_PATH_DEVICE);
	return deliver(skb, in.to, in.ifindex, WEFT_DELIVERED);
}

#endif
