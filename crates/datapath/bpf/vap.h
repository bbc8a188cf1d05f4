/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What a tenant system sends: who is this, may it, where to. */
#ifndef WEFT_VAP_H
#define WEFT_VAP_H

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
	struct weft_learned *seen = 0;
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
		trace_tell(skb, WEFT_STEP_LOCATION, ret == CARRY ? WEFT_STEP_BY_GATEWAY : at && !seen, ifindex, rloc);
	if (too_big(skb, vap, l4)) {
		if (is_traced(skb) || !ip || !may_answer(skb, v4, l4))
			return drop(skb, *w, WEFT_TOO_BIG);
		return v4 ? answer_frag_needed(skb, vap, l4) : answer_packet_too_big(skb, vap, l4);
	}
	if (everywhere)
		return replicate(skb, vap, again ? TO_VAPS | TO_MEMBERS | TO_AGAIN : TO_VAPS | TO_MEMBERS);
	if (to && is_refused(skb, to, ifindex, WEFT_IN))
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
		if (is_refused(skb, vap, ifindex, WEFT_OUT))
			return drop(skb, w, WEFT_DENIED);
		if (too_big(skb, vap, &l4))
			return drop(skb, w, WEFT_TOO_BIG);
		ret = TO_VAPS | TO_MEMBERS | TO_RECEIVERS;
		return replicate(skb, vap, again ? ret | TO_AGAIN : ret);
	}
	if (is_traced(skb))
		trace_tell(skb, WEFT_STEP_CHECKED, 0, 0, 0);
	ret = is_refused(skb, vap, ifindex, again ? WEFT_OUT | POLICY_AGAIN : WEFT_OUT);
	if (ret)
		return drop(skb, w, ret);
	return forward(skb, vap, &w, &eth, &l4, again);
}

#endif
