/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Multicast to those that asked for it: which group a frame is for, and what tenant systems say of groups. Only in
 * VNs that replicate; the agent is the querier of each VAP (RFC 4541). */
#ifndef WEFT_GROUPS_H
#define WEFT_GROUPS_H

static __always_inline bool narrows(__u8 mode)
{
	return mode & WEFT_REPLICATES;
}

/* The group that a frame is for, unless that is a group of one link, which goes to everybody: GroupIp. */
static __noinline bool group_of(struct __sk_buff *skb, struct weft_ip *group)
{
	__be16 proto;
	__be32 v4;

	if (!group || bpf_skb_load_bytes(skb, 12, &proto, 2))
		return false;
	if (proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 16, &v4, 4))
			return false;
		ip_from_v4(group, v4);
		return (v4 & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) &&
		       (v4 & bpf_htonl(0xffffff00)) != bpf_htonl(0xe0000000);
	}
	if (proto != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ETH_LEN + 24, group, 16))
		return false;
	return (group->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) &&
	       (group->w[0] & bpf_htonl(0x000f0000)) > bpf_htonl(0x00020000);
}

static __always_inline struct weft_group *find_group(__u32 vni, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;

	key.scope = vni;
	key.ip = *ip;
	return bpf_map_lookup_elem(&groups, &key);
}

#define IGMP_QUERY 0x11
#define IGMP_V1_REPORT 0x12
#define IGMP_V2_REPORT 0x16
#define IGMP_LEAVE 0x17
#define IGMP_V3_REPORT 0x22
#define MLD_QUERY 130
#define MLD_REPORT 131
#define MLD_DONE 132
#define MLD_V2_REPORT 143

/* To the agent as a whole: a report names many groups. */
static __noinline int hand_up(struct __sk_buff *skb, struct weft_vap *vap)
{
	__u32 outcome = WEFT_PUNTED, len = skb->len;
	struct weft_held *p;
	__u32 vni, path;

	if (!vap)
		return TC_ACT_SHOT;
	vni = vap->vni;
	path = vap->path;
	if (!take_token(&vap->punt_tat, vap->punt_interval, vap->punt_window)) {
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
	p->reason = WEFT_PUNT_REPORT;
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
		return say(skb, WEFT_DID_PUNT, WEFT_PUNTED, WEFT_PUNT_REPORT, TC_ACT_SHOT);
	return say(skb, WEFT_DID_DROP, outcome, 0, TC_ACT_SHOT);
}

/* A frame for a group, past every check. What is said of groups (RFC 3376, RFC 3810) goes to the agent and nowhere
 * else; other values than GO_ON are what the program returns. */
static __noinline int vap_membership(struct __sk_buff *skb, struct weft_vap *vap, const struct l4 *l4, __u32 proto)
{
	bool v4 = proto == bpf_htons(ETH_P_IP);
	struct where w;
	__u8 type;

	if (!vap || !l4)
		return TC_ACT_SHOT;
	if (!v4 && proto != bpf_htons(ETH_P_IPV6))
		return GO_ON;
	if (l4->proto != (v4 ? IPPROTO_IGMP : IPPROTO_ICMPV6))
		return GO_ON;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (l4->later)
		return v4 ? drop(skb, w, WEFT_HIDDEN_L4) : GO_ON;
	if (bpf_skb_load_bytes(skb, l4->off, &type, 1))
		return drop(skb, w, WEFT_MALFORMED);
	/* The querier is this NVE: another one would silence it. */
	if (type == (v4 ? IGMP_QUERY : MLD_QUERY))
		return drop(skb, w, WEFT_ROGUE_ROUTER);
	if (v4 ? type == IGMP_V1_REPORT || type == IGMP_V2_REPORT || type == IGMP_LEAVE || type == IGMP_V3_REPORT :
		 type == MLD_REPORT || type == MLD_DONE || type == MLD_V2_REPORT)
		return hand_up(skb, vap);
	return GO_ON;
}

#endif
