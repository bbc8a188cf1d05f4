/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* One frame to many: to the VAPs of its VN here and, a copy each, to the NVEs that are its members, or to those of
 * them that asked for its group. What came from a member goes to VAPs only (split horizon), so that no frame can go
 * round. */
#ifndef WEFT_MEMBERS_H
#define WEFT_MEMBERS_H

/* Whether frames for unknown destinations go everywhere, and ARP and ND with them. */
static __always_inline bool floods(__u8 mode)
{
	return (mode & WEFT_LEARNS) == WEFT_LEARNS_FLOOD;
}

static __always_inline bool translates(__u8 mode)
{
	return (mode & WEFT_LEARNS) == WEFT_LEARNS_TRANSLATE;
}

struct copies {
	struct __sk_buff *skb;
	struct weft_group *group; /* whom it is for, or null */
	__u64 copy; /* what policies look at, once one has to */
	__u32 vni;
	__u32 except; /* the VAP it came from */
	__u32 done;
	__u16 refused; /* why somebody got none, or 0 */
	__u8 ttl;
	__u8 ds;
	bool dry; /* a test run: nothing leaves */
	bool again; /* which look */
};

/* A test run says so: what a live frame has there is no secret of anybody's, but a frame that looks like a
 * test run's harms nobody except who made it. */
static __always_inline bool is_dry(const struct __sk_buff *skb)
{
	return skb->cb[3] == WEFT_DRY && skb->cb[4] == ~WEFT_DRY;
}

static __always_inline void copy_to(struct copies *c, __u32 to)
{
	struct weft_vap *vap;

	if (to == c->except)
		return;
	vap = bpf_map_lookup_elem(&vaps, &to);
	if (!vap || vap->vni != c->vni || !(vap->flags & WEFT_VAP_ACTIVATED))
		return;
	if (vap->policy) {
		if (!c->copy)
			c->copy = read_copy(c->skb, c->vni, c->again);
		if (refuses_copy(c->skb, vap, to, c->copy, c->again)) {
			count(c->skb, c->vni, WEFT_DENIED, WEFT_PATH_DEVICE, WEFT_IN);
			c->refused = WEFT_DENIED;
			return;
		}
	}
	if (!is_vap_of(vap, to))
		return;
	if (gets_too_much(c->skb, vap)) {
		count(c->skb, c->vni, WEFT_RATE_LIMITED, WEFT_PATH_DEVICE, WEFT_IN);
		c->refused = WEFT_RATE_LIMITED;
		return;
	}
	if (c->dry || !bpf_clone_redirect(c->skb, to, 0))
		c->done++;
}

static long copy_to_vap(__u32 index, struct copies *c)
{
	struct weft_indexed key;
	__u32 *entry;

	key.vni = c->vni;
	key.index = index;
	entry = bpf_map_lookup_elem(&vn_vaps, &key);
	if (entry)
		copy_to(c, *entry);
	return 0;
}

static long copy_to_listener(__u32 index, struct copies *c)
{
	struct weft_group *group = c->group;

	if (!group || index >= WEFT_GROUP_SIZE)
		return 1;
	copy_to(c, group->ifindex[index]);
	return 0;
}

static __always_inline void encapsulate_to(struct copies *c, const struct weft_ip *rloc)
{
	struct weft_config *cfg = get_config();

	if (!cfg || !(cfg->families & (is_v4(rloc) ? WEFT_FAMILY_V4 : WEFT_FAMILY_V6)))
		return;
	if (c->dry || (!set_tunnel(c->skb, cfg, c->vni, rloc, c->ttl, c->ds) &&
		       !bpf_clone_redirect(c->skb, cfg->vxlan_ifindex, 0)))
		c->done++;
}

static long copy_to_member(__u32 index, struct copies *c)
{
	struct weft_indexed key;
	struct weft_ip *rloc;

	key.vni = c->vni;
	key.index = index;
	rloc = bpf_map_lookup_elem(&members, &key);
	if (rloc)
		encapsulate_to(c, rloc);
	return 0;
}

static long copy_to_receiver(__u32 index, struct copies *c)
{
	struct weft_group *group = c->group;

	if (!group || index >= WEFT_GROUP_SIZE)
		return 1;
	encapsulate_to(c, &group->rloc[index]);
	return 0;
}

static __always_inline void copy_to_vaps(struct copies *c, const struct weft_vn *vn)
{
	struct weft_group *group = c->group;

	if (group && group->vaps != WEFT_GROUP_ALL)
		bpf_loop(group->vaps, copy_to_listener, c, 0);
	else
		bpf_loop(vn->vaps, copy_to_vap, c, 0);
}

static __always_inline void copy_to_members(struct copies *c, const struct weft_settings *how)
{
	struct weft_group *group = c->group;

	if (group && group->members != WEFT_GROUP_ALL)
		bpf_loop(group->members, copy_to_receiver, c, 0);
	else
		bpf_loop(how->members, copy_to_member, c, 0);
}

/* Whether only the VAP that sends asked for what it sends. */
static __always_inline bool is_alone(const struct weft_group *group, __u32 ifindex)
{
	return !group->members && group->vaps == 1 && group->ifindex[0] == ifindex;
}

/* More than a VAP of the VN may have replicated. */
static __always_inline bool storms(struct weft_vap *vap, const struct weft_settings *how)
{
	__u64 interval = SECOND / (how->storm_rate ? how->storm_rate : 1);

	return !take_token(&vap->storm_tat, interval, interval * how->storm_burst);
}

/* Where a frame names its sender beside the Ethernet header. Other values are the kind of option that it is in. */
#define SENDER_NOWHERE 0
#define SENDER_IN_NA 2
#define SENDER_IN_ARP 3

#define TO_VAPS 1
#define TO_MEMBERS 2
#define TO_RECEIVERS 4 /* of these only those that asked, if one has to ask for its group */
#define TO_AGAIN 8 /* it has been held */
#define SAYS_IN_ARP 16 /* to members the sender is this NVE in ARP, too, */
#define SAYS_IN_NA 32  /* or in the options of a Neighbor Advertisement */

#define TO_EVERYBODY 0
#define TO_ASKERS 1
#define TO_NOBODY 2

/* Whom a frame is for: of TO_ASKERS `found` says who. */
static __noinline int find_receivers(struct __sk_buff *skb, __u32 vni, struct weft_group **found)
{
	struct weft_ip group;

	if (!found || !group_of(skb, &group))
		return TO_EVERYBODY;
	*found = find_group(vni, &group);
	return *found ? TO_ASKERS : TO_NOBODY;
}

static __noinline bool translate_sender(struct __sk_buff *skb, __u32 where);

/* A frame out of a VAP, past every check. Counted once, however many copies there are. By the VXLAN
 * device, which takes every kind of frame and finds the next hops itself. */
__noinline int replicate(struct __sk_buff *skb, struct weft_vap *vap, __u32 to)
{
	struct weft_settings *how;
	struct weft_config *cfg;
	struct weft_vn *vn;
	struct copies c;
	struct where w;

	if (!vap)
		return TC_ACT_SHOT;
	c.group = 0;
	w.vni = vap->vni;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_OUT;
	how = bpf_map_lookup_elem(&settings, &w.vni);
	vn = bpf_map_lookup_elem(&vns, &w.vni);
	if (!how || !vn)
		return drop(skb, w, WEFT_BUM_OFF);
	if (to & TO_RECEIVERS && narrows(how->mode)) {
		if (find_receivers(skb, w.vni, &c.group) == TO_NOBODY ||
		    (c.group && is_alone(c.group, skb->ifindex)))
			return drop(skb, w, WEFT_NO_RECEIVER);
	}
	if (is_traced(skb) && trace_stops(skb))
		return say(skb, WEFT_DID_STOP, WEFT_REPLICATED, 0, TC_ACT_SHOT);
	if (storms(vap, how))
		return drop(skb, w, WEFT_STORM);
	if (sends_too_much(skb, vap))
		return drop(skb, w, WEFT_RATE_LIMITED);
	count(skb, w.vni, WEFT_REPLICATED, w.path, w.direction);
	c.skb = skb;
	c.vni = w.vni;
	c.except = skb->ifindex;
	c.done = 0;
	c.refused = 0;
	c.ttl = vap->ttl;
	c.ds = outer_ds(skb, vap);
	c.copy = 0;
	c.dry = is_dry(skb);
	c.again = !!(to & TO_AGAIN);
	if (to & TO_VAPS)
		copy_to_vaps(&c, vn);
	if (translates(how->mode)) {
		cfg = get_config();
		if (cfg)
			bpf_skb_store_bytes(skb, 6, cfg->node_mac, 6, 0);
	}
	if (to & (SAYS_IN_ARP | SAYS_IN_NA) &&
	    !translate_sender(skb, to & SAYS_IN_ARP ? SENDER_IN_ARP : SENDER_IN_NA))
		to = 0;
	if (to & TO_MEMBERS)
		copy_to_members(&c, how);
	return say(skb, WEFT_DID_REPLICATE, WEFT_REPLICATED, c.done, TC_ACT_SHOT);
}

/* A member's, stripped. */
__noinline int spread(struct __sk_buff *skb, __u32 vni)
{
	struct weft_vn *vn = bpf_map_lookup_elem(&vns, &vni);
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);
	struct copies c;
	struct where w;

	w.vni = vn ? vni : 0;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	if (!vn)
		return drop(skb, w, WEFT_UNKNOWN_VNI);
	c.group = 0;
	if (how && narrows(how->mode) && find_receivers(skb, vni, &c.group) == TO_NOBODY)
		return drop(skb, w, WEFT_NO_RECEIVER);
	c.skb = skb;
	c.vni = vni;
	c.except = 0;
	c.done = 0;
	c.refused = 0;
	c.ttl = OUTER_TTL;
	c.ds = 0;
	c.copy = 0;
	c.dry = is_dry(skb);
	c.again = false;
	copy_to_vaps(&c, vn);
	if (!c.done && c.refused) /* counted each */
		return say(skb, WEFT_DID_DROP, c.refused, 0, TC_ACT_SHOT);
	if (!c.done)
		return drop(skb, w, c.group ? WEFT_NO_RECEIVER : WEFT_NO_SUCH_TS);
	count_hot(amount_of(skb, 0), vn->slot, WEFT_HOT_DELIVERED + WEFT_PATH_DEVICE);
	return say(skb, WEFT_DID_REPLICATE, WEFT_DELIVERED, c.done, TC_ACT_SHOT);
}

#define ND_HIDDEN 255

/* Which message of Router or Neighbor Discovery it is, 0 if none, ND_HIDDEN if it may be one. */
__noinline int nd_type(struct __sk_buff *skb)
{
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct ipv6hdr));
	struct ipv6hdr *ip;
	struct l4 l4;
	__u32 end;
	__u8 type;

	if (!eth)
		return ND_HIDDEN;
	ip = (void *)(eth + 1);
	end = packet_end(skb, bpf_ntohs(ip->payload_len), sizeof(*ip));
	if (end > skb->len || !skip_extensions(skb, ip->nexthdr, end, &l4))
		return ND_HIDDEN;
	if (l4.later || l4.proto != IPPROTO_ICMPV6)
		return 0;
	if (l4.off + 4 > end || bpf_skb_load_bytes(skb, l4.off, &type, 1))
		return ND_HIDDEN;
	if (type < 133 || type > 137)
		return 0;
	return l4.direct ? type : ND_HIDDEN;
}

#define STAYS_OUT 0
#define TO_ALL 1
#define TO_OWNER 2

/* Whether a member's frame for a group may come in, and to whom. ARP and ND may where nobody answers for
 * anybody, and questions and announcements where whoever is asked answers. What is still encapsulated is looked at again when it
 * is stripped. */
__noinline int lets_in(struct __sk_buff *skb, __u32 vni, __u32 proto, bool stripped)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);
	bool arp = proto == bpf_htons(ETH_P_ARP), ip6 = proto == bpf_htons(ETH_P_IPV6), asks;
	__u32 type = 0;

	if (!how)
		return STAYS_OUT;
	if (floods(how->mode))
		return TO_ALL;
	asks = translates(how->mode);
	if (ip6 && stripped && (asks || how->mode & WEFT_REPLICATES)) {
		type = nd_type(skb);
		if (type)
			return asks && (type == ND_NS || type == ND_NA) ? TO_OWNER : STAYS_OUT;
	}
	if (arp)
		return asks ? TO_OWNER : STAYS_OUT;
	if (ip6 && !stripped && asks)
		return TO_ALL;
	return how->mode & WEFT_REPLICATES ? TO_ALL : STAYS_OUT;
}

#endif
