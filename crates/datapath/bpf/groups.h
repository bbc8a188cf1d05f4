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

/* Who is to get a group: those of its entry, else those that want all. */
static __always_inline struct weft_group *find_group(__u32 vni, const struct weft_ip *ip)
{
	struct weft_scoped_ip key;
	struct weft_group *found;

	key.scope = vni;
	key.ip = *ip;
	found = bpf_map_lookup_elem(&groups, &key);
	if (found)
		return found;
	__builtin_memset(&key.ip, 0, sizeof(key.ip));
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
		return punt_whole(skb, vap, WEFT_PUNT_REPORT); /* it names many groups */
	return GO_ON;
}

#endif
