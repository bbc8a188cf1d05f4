/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* The gateway of a VN: what another NVE did not know the way of is carried on, once. Out of here it has an outer
 * TTL from which every NVE sees that it was, so that however wrong tables are no frame goes round; it never goes
 * back to the NVE it came from, and to one place only. */
#ifndef WEFT_CARRY_H
#define WEFT_CARRY_H

/* Frames leave with OUTER_TTL otherwise: routers between them take away less than the difference. */
#define CARRIED_TTL 32
/* No frame's: what the agent has held for others. */
#define CARRY_AGAIN 256

/* Not where frames for anybody come to everybody, or NVEs stand for their tenant systems. */
static __noinline bool carries(__u32 vni)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);

	return how && how->carries && !floods(how->mode) && !translates(how->mode);
}

/* Whether a frame came from the VN's gateway, which sends for others: it is not fenced. */
static __noinline bool by_gateway(__u32 vni, __u32 node)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);
	struct weft_peer *peer;

	if (!has_gateway(how))
		return false;
	peer = bpf_map_lookup_elem(&peers, &how->gateway);
	return peer && peer->node == node;
}

/* The owner's MAC address of a frame that another NVE was to route and could not, in `inner` and itself; the
 * reason why there is none, or 0. */
static __noinline __u32 route_carried(struct __sk_buff *skb, __u32 vni, struct eth *inner)
{
	struct weft_neighbour *n;
	struct weft_ip dst;
	__be32 v4;

	if (!inner)
		return WEFT_MALFORMED;
	if (inner->h_proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 16, &v4, 4))
			return WEFT_MALFORMED;
		ip_from_v4(&dst, v4);
	} else if (inner->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 24, &dst, 16))
			return WEFT_MALFORMED;
	} else {
		return WEFT_UNKNOWN_MAC;
	}
	n = find_neighbour(vni, &dst);
	if (!n)
		return WEFT_NO_SUCH_TS;
	if (!n->known)
		return WEFT_NOBODY;
	copy_mac(inner->h_dest, n->mac);
	return bpf_skb_store_bytes(skb, 0, n->mac, 6, 0) ? WEFT_KERNEL : 0;
}

/* Frames a second that the agent of a gateway holds for others: of one VN and of all. */
#define CARRIED_A_SECOND 500
#define CARRIED_OF_ALL 1000

/* What a stripped frame's destination is held by: its MAC address, or the IP address that it is to be routed to. */
static __always_inline bool held_key(struct __sk_buff *skb, __u32 vni, const struct eth *inner, struct weft_vn_mac *key)
{
	struct weft_ip dst;
	__be32 v4;

	key->vni = vni;
	copy_mac(key->mac, inner->h_dest);
	*(__u16 *)key->pad = 0;
	if (!is_anycast(inner->h_dest, vni))
		return true;
	if (inner->h_proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 16, &v4, 4))
			return false;
		ip_from_v4(&dst, v4);
	} else if (bpf_skb_load_bytes(skb, ETH_LEN + 24, &dst, 16)) {
		return false;
	}
	asked_ip(key, vni, &dst);
	return true;
}

/* To the agent, as it came, so that it can be carried on when the answer is there. What was held before, and what a
 * gateway has sent (`ttl`), is not: nobody waits twice. */
static __noinline int hold_carried(struct __sk_buff *skb, __u32 vni, const struct weft_ip *from,
				   const struct eth *inner, __u32 ttl)
{
	__u32 outcome = WEFT_PUNTED;
	struct weft_vn_mac key;
	struct weft_held *p;
	struct where w;

	if (!from || !inner)
		return TC_ACT_SHOT;
	w.vni = vni;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	if (ttl == CARRY_AGAIN || is_traced(skb))
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	if (ttl <= CARRIED_TTL) {
		report(skb, vni, from, 0);
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	}
	if (!held_key(skb, vni, inner, &key))
		return drop_inward(skb, w, WEFT_MALFORMED);
	if (!may_hold(&key) || !may_report(vni, BUCKET_CARRIED, CARRIED_A_SECOND) ||
	    !may_report(0, BUCKET_CARRIED, CARRIED_OF_ALL))
		return drop_inward(skb, w, WEFT_PUNT_LIMITED);
	p = bpf_ringbuf_reserve(&punts, sizeof(*p), 0);
	if (!p)
		return drop_inward(skb, w, WEFT_PUNT_RING_FULL);
	p->ifindex = 0;
	p->vni = vni;
	p->reason = WEFT_PUNT_CARRIED;
	p->len = copy_frame(skb, 0, p->frame, WEFT_HELD_BYTES);
	copy_mac(p->dst, p->frame);
	p->toward = 0;
	p->pad = 0;
	p->from = *from;
	p->rule = 0;
	bpf_ringbuf_submit(p, 0);
	count(skb, bpf_map_lookup_elem(&vns, &vni) ? vni : 0, outcome, w.path, w.direction);
	return say(skb, WEFT_DID_PUNT, outcome, WEFT_PUNT_CARRIED, TC_ACT_SHOT);
}

/* It is for a tenant system that is here after all: where it was routed to, mostly. Called from further up, for the sake of
 * the stack: its policy is asked. */
static __noinline int carry_here(struct __sk_buff *skb, __u32 vni, const struct eth *inner, __u32 ttl)
{
	struct weft_location *at;
	struct weft_vn_mac key;
	struct weft_vap *to;
	struct where w;
	__u32 ifindex;

	if (!inner)
		return TC_ACT_SHOT;
	w.vni = vni;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	key.vni = vni;
	copy_mac(key.mac, inner->h_dest);
	*(__u16 *)key.pad = 0;
	at = bpf_map_lookup_elem(&fdb, &key);
	if (!at || at->kind != WEFT_AT_LOCAL)
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	ifindex = at->ifindex;
	to = bpf_map_lookup_elem(&vaps, &ifindex);
	if (!to || to->vni != vni)
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	if (!(to->flags & WEFT_VAP_ACTIVATED))
		return drop_inward(skb, w, WEFT_NOT_ACTIVATED);
	if (is_refused(skb, to, ifindex, WEFT_IN))
		return drop_inward(skb, w, WEFT_DENIED);
	if (gets_too_much(skb, to))
		return drop_inward(skb, w, WEFT_RATE_LIMITED);
	if (ttl == CARRY_AGAIN && bpf_clone_redirect(skb, ifindex, 0))
		return drop_inward(skb, w, WEFT_KERNEL);
	count_hot(amount_of(skb, 0), to->slot, WEFT_HOT_DELIVERED + WEFT_PATH_DEVICE);
	if (ttl == CARRY_AGAIN)
		return say(skb, WEFT_DID_DELIVER, WEFT_DELIVERED, ifindex, TC_ACT_SHOT);
	return deliver(skb, to, ifindex, WEFT_DELIVERED);
}

/* A stripped frame for somebody who is not here; HERE: he is. What is not known is asked for, and
 * waits. With the TTL CARRY_AGAIN the frame has waited, and the program is a test run, of which nothing but clones leaves. */
static __noinline int carry(struct __sk_buff *skb, struct outer *outer, struct eth *inner)
{
	struct weft_config *cfg = get_config();
	struct weft_settings *how;
	struct weft_location *at;
	struct weft_peer *peer;
	struct weft_vn_mac key;
	struct where w;
	__u32 reason, vni, ttl;

	if (!outer || !inner || !cfg)
		return TC_ACT_SHOT;
	vni = outer->vni;
	ttl = outer->ttl;
	w.vni = vni;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	peer = bpf_map_lookup_elem(&peers, &outer->from);
	if (!peer)
		return drop_inward(skb, w, WEFT_FOREIGN_RLOC);
	how = bpf_map_lookup_elem(&settings, &vni);
	if (how && distributes(how->mode) && is_anycast(inner->h_dest, vni)) {
		reason = route_carried(skb, vni, inner);
		if (reason == WEFT_NO_SUCH_TS)
			return hold_carried(skb, vni, &outer->from, inner, ttl);
		if (reason)
			return drop_inward(skb, w, reason);
	}
	key.vni = vni;
	copy_mac(key.mac, inner->h_dest);
	*(__u16 *)key.pad = 0;
	at = bpf_map_lookup_elem(&fdb, &key);
	if (at && at->kind == WEFT_AT_LOCAL)
		return HERE;
	if (!at)
		return hold_carried(skb, vni, &outer->from, inner, ttl);
	if (at->kind != WEFT_AT_REMOTE)
		return drop_inward(skb, w, WEFT_NOWHERE);
	if (ttl <= CARRIED_TTL || !elsewhere(&at->rloc, &outer->from, peer->node)) {
		if (ttl != CARRY_AGAIN)
			report(skb, vni, &outer->from, 0);
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	}
	touch(at, bpf_ktime_get_coarse_ns());
	if (!(cfg->families & (is_v4(&at->rloc) ? WEFT_FAMILY_V4 : WEFT_FAMILY_V6)))
		return drop_inward(skb, w, WEFT_NO_RLOC);
	if (is_traced(skb)) {
		trace_tell(skb, WEFT_STEP_LOCATION, WEFT_STEP_BY_TABLE, 0, &at->rloc);
		outer->to = at->rloc;
		outer->ttl = CARRIED_TTL;
		outer->ds &= 0xfc;
		return ONWARD;
	}
	if (set_tunnel(skb, cfg, vni, &at->rloc, CARRIED_TTL, outer->ds & 0xfc))
		return drop_inward(skb, w, WEFT_KERNEL);
	if (ttl == CARRY_AGAIN && bpf_clone_redirect(skb, cfg->vxlan_ifindex, 0))
		return drop_inward(skb, w, WEFT_KERNEL);
	count(skb, vni, WEFT_BY_GATEWAY, w.path, w.direction);
	if (ttl == CARRY_AGAIN)
		return say(skb, WEFT_DID_DEVICE, WEFT_BY_GATEWAY, cfg->vxlan_ifindex, TC_ACT_SHOT);
	return say(skb, WEFT_DID_DEVICE, WEFT_BY_GATEWAY, cfg->vxlan_ifindex, bpf_redirect(cfg->vxlan_ifindex, 0));
}

/* The agent gives the NVE that the frame came from, and the VN, in `cb`, which is read before anything is said in it. */
static __always_inline int carry_held(struct __sk_buff *skb)
{
	struct eth *p, inner;
	struct outer outer;
	int ret;

	outer.from.w[0] = skb->cb[0];
	outer.from.w[1] = skb->cb[1];
	outer.from.w[2] = skb->cb[2];
	outer.from.w[3] = skb->cb[3];
	outer.vni = skb->cb[4];
	outer.ttl = CARRY_AGAIN;
	outer.ds = 0;
	p = head(skb, ETH_LEN);
	if (!p)
		return TC_ACT_SHOT;
	inner = *p;
	ret = carry(skb, &outer, &inner);
	return ret == HERE ? carry_here(skb, outer.vni, &inner, CARRY_AGAIN) : ret;
}

#endif
