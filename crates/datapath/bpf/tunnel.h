/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* VXLAN (RFC 7348) over IPv4 and IPv6, written and stripped here or left to the VXLAN device. */
#ifndef WEFT_TUNNEL_H
#define WEFT_TUNNEL_H

#define VXLAN_PORT 4789
#define VXLAN_I 0x08
#define OUTER_TTL 64
#define DF 0x4000

/* Newer than the headers of some supported distributions. */
#define FIB_SKIP_NEIGH (1U << 2)
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

struct vxlan {
	__be32 flags, vni;
};

/* What the tunnel adds: outer IP, UDP, VXLAN, and the inner Ethernet header. */
#define TAIL (sizeof(struct udphdr) + sizeof(struct vxlan) + ETH_LEN)
#define GROW4 (sizeof(struct iphdr) + TAIL)
#define GROW6 (sizeof(struct ipv6hdr) + TAIL)

/* UDP with the checksum 0 that RFC 7348 asks for and RFC 6935 allows over IPv6, VXLAN, inner Ethernet. */
static __always_inline void write_tail(void *at, __be16 sport, __u32 len, __u32 vni, const struct eth *inner)
{
	struct udphdr *udp = at;
	struct vxlan *vx = at + sizeof(*udp);

	udp->source = sport;
	udp->dest = bpf_htons(VXLAN_PORT);
	udp->len = bpf_htons(len + sizeof(*udp) + sizeof(*vx));
	udp->check = 0;
	vx->flags = bpf_htonl(VXLAN_I << 24);
	vx->vni = bpf_htonl(vni << 8);
	*(struct eth *)(vx + 1) = *inner;
}

static __always_inline int encap_device(struct __sk_buff *skb, struct where w, struct weft_config *cfg,
					const struct weft_ip *rloc)
{
	struct bpf_tunnel_key key;
	__u64 flags = BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT;
	__u32 i;

	__builtin_memset(&key, 0, sizeof(key));
	key.tunnel_id = w.vni;
	key.tunnel_ttl = OUTER_TTL;
	if (is_v4(rloc)) {
		key.remote_ipv4 = bpf_ntohl(rloc->w[3]);
		key.local_ipv4 = bpf_ntohl(cfg->rloc4.w[3]);
	} else {
		flags |= BPF_F_TUNINFO_IPV6;
		for (i = 0; i < 4; i++) {
			key.remote_ipv6[i] = rloc->w[i];
			key.local_ipv6[i] = cfg->rloc6.w[i];
		}
	}
	w.path = WEFT_PATH_DEVICE;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags))
		return drop(skb, w, WEFT_KERNEL);
	count_hot(skb, w.slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DEVICE);
	return say(skb, WEFT_DID_DEVICE, WEFT_ENCAPSULATED, cfg->vxlan_ifindex,
		   bpf_redirect(cfg->vxlan_ifindex, 0));
}

/* The next hop towards an outer destination. Entered at the VXLAN device, the only one with
 * forwarding on, so that routes and ECMP are the kernel's and the uplinks' settings are left alone. */
static __always_inline long next_hop(struct __sk_buff *skb, struct bpf_fib_lookup *p, __u32 ifindex)
{
	p->l4_protocol = IPPROTO_UDP;
	p->ifindex = ifindex;
	return bpf_fib_lookup(skb, p, sizeof(*p), FIB_SKIP_NEIGH);
}

/* `ipv6_nh` overlays `ipv4_nh`, as `ipv6_dst` does `ipv4_dst`. */
static __always_inline void set_neigh(struct bpf_redir_neigh *nh, const struct bpf_fib_lookup *p)
{
	nh->nh_family = p->family;
	nh->ipv6_nh[0] = p->ipv6_dst[0];
	nh->ipv6_nh[1] = p->ipv6_dst[1];
	nh->ipv6_nh[2] = p->ipv6_dst[2];
	nh->ipv6_nh[3] = p->ipv6_dst[3];
}

/* Next hops of the flows of late: a lookup of a busy flow costs as much as the rest of the decision.
 * Kept so shortly that a change of routes takes effect as soon as anybody could have made it known. */
struct hop {
	struct weft_ip rloc;
	__u64 until;
	__be16 sport;
	__u16 pad;
	__u32 ifindex;
	struct bpf_redir_neigh nh;
	__u32 pad2;
};

#define HOPS 1024
#define HOP_KEPT 8000000ULL /* ns */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct hop);
	__uint(max_entries, HOPS);
} hops SEC(".maps");

/* The next hop of a flow to an RLOC; null where there is no route to be had here. */
static __always_inline struct hop *find_hop(struct __sk_buff *skb, struct weft_config *cfg,
					    const struct weft_ip *rloc, __be16 sport)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 key = bpf_ntohs(sport) & (HOPS - 1), i;
	struct hop *hop = bpf_map_lookup_elem(&hops, &key);
	struct bpf_fib_lookup p;

	if (!hop)
		return 0;
	if (hop->until > now && hop->sport == sport && same_ip(&hop->rloc, rloc))
		return hop;
	__builtin_memset(&p, 0, sizeof(p));
	p.sport = sport;
	p.dport = bpf_htons(VXLAN_PORT);
	if (is_v4(rloc)) {
		p.family = 2; /* AF_INET */
		p.ipv4_src = cfg->rloc4.w[3];
		p.ipv4_dst = rloc->w[3];
	} else {
		p.family = 10; /* AF_INET6 */
		for (i = 0; i < 4; i++) {
			p.ipv6_src[i] = cfg->rloc6.w[i];
			p.ipv6_dst[i] = rloc->w[i];
		}
	}
	if (next_hop(skb, &p, cfg->vxlan_ifindex))
		return 0;
	hop->rloc = *rloc;
	hop->until = now + HOP_KEPT;
	hop->sport = sport;
	hop->ifindex = p.ifindex;
	set_neigh(&hop->nh, &p);
	return hop;
}

static __always_inline __be16 source_port(struct __sk_buff *skb)
{
	return bpf_htons(49152 + (bpf_get_hash_recalc(skb) & 0x3fff));
}

/* ECN bits of the inner IP header, which the outer one takes over (RFC 6040 section 4.1). */
static __always_inline __u8 inner_ecn(const struct eth *eth)
{
	const __u8 *ip = (const void *)(eth + 1);

	return eth->h_proto == bpf_htons(ETH_P_IP) ? ip[1] & 3 : ip[1] >> 4 & 3;
}

/* Frames with an IP header of the right version only. Where there is no route to be had here (the
 * destination is this host, the family is off at our device) the VXLAN device decides. */
static __always_inline int encap_direct4(struct __sk_buff *skb, struct where w, struct weft_config *cfg,
					 __be32 rloc)
{
	__be32 src = cfg->rloc4.w[3];
	struct eth *in = head(skb, ETH_LEN + 2);
	struct weft_ip dst;
	struct hop *hop;
	struct eth inner, *out;
	struct iphdr *ip;
	__u32 len = skb->len, sum;
	__u8 ecn;
	__be16 sport = source_port(skb);

	if (!in)
		return drop(skb, w, WEFT_MALFORMED);
	inner = *in;
	ecn = inner_ecn(in);
	ip_from_v4(&dst, rloc);
	hop = find_hop(skb, cfg, &dst, sport);
	if (!hop)
		return encap_device(skb, w, cfg, &dst);
	w.path = WEFT_PATH_DIRECT;
	count_hot(skb, w.slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DIRECT);
	if (bpf_skb_adjust_room(skb, GROW4, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
					BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_LEN) |
					BPF_F_ADJ_ROOM_ENCAP_L2_ETH))
		return drop(skb, w, WEFT_KERNEL);
	out = head(skb, ETH_LEN + GROW4);
	if (!out)
		return drop(skb, w, WEFT_KERNEL);
	out->h_proto = bpf_htons(ETH_P_IP);
	ip = (void *)(out + 1);
	*(__u16 *)ip = bpf_htons(0x4500 | ecn);
	ip->tot_len = bpf_htons(len + GROW4 - ETH_LEN);
	ip->id = 0;
	ip->frag_off = bpf_htons(DF);
	ip->ttl = OUTER_TTL;
	ip->protocol = IPPROTO_UDP;
	sum = bpf_htons(0x4500 | ecn) + bpf_htons((__u16)(len + GROW4 - ETH_LEN)) + bpf_htons(DF) +
	      bpf_htons(OUTER_TTL << 8 | IPPROTO_UDP) + (src & 0xffff) + (src >> 16) + (rloc & 0xffff) +
	      (rloc >> 16);
	ip->check = fold(sum);
	ip->saddr = src;
	ip->daddr = rloc;
	write_tail(ip + 1, sport, len, w.vni, &inner);
	return say(skb, WEFT_DID_DIRECT, WEFT_ENCAPSULATED, hop->ifindex,
		   bpf_redirect_neigh(hop->ifindex, &hop->nh, sizeof(hop->nh), 0));
}

static __always_inline int encap_direct6(struct __sk_buff *skb, struct where w, struct weft_config *cfg,
					 const struct weft_ip *rloc)
{
	struct eth *in = head(skb, ETH_LEN + 2);
	struct weft_ip dst;
	struct hop *hop;
	struct eth inner, *out;
	struct ipv6hdr *ip;
	__u32 len = skb->len, i;
	__u8 ecn;
	__be16 sport = source_port(skb);

	if (!in)
		return drop(skb, w, WEFT_MALFORMED);
	inner = *in;
	ecn = inner_ecn(in);
	dst = *rloc;
	hop = find_hop(skb, cfg, &dst, sport);
	if (!hop)
		return encap_device(skb, w, cfg, &dst);
	w.path = WEFT_PATH_DIRECT;
	count_hot(skb, w.slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DIRECT);
	if (bpf_skb_adjust_room(skb, GROW6, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 |
					BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_LEN) |
					BPF_F_ADJ_ROOM_ENCAP_L2_ETH))
		return drop(skb, w, WEFT_KERNEL);
	out = head(skb, ETH_LEN + GROW6);
	if (!out)
		return drop(skb, w, WEFT_KERNEL);
	out->h_proto = bpf_htons(ETH_P_IPV6);
	ip = (void *)(out + 1);
	*(__u32 *)ip = bpf_htonl(0x60000000 | ecn << 20);
	ip->payload_len = bpf_htons(len + sizeof(struct udphdr) + sizeof(struct vxlan));
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = OUTER_TTL;
	for (i = 0; i < 4; i++) {
		ip->saddr.in6_u.u6_addr32[i] = cfg->rloc6.w[i];
		ip->daddr.in6_u.u6_addr32[i] = dst.w[i];
	}
	write_tail(ip + 1, sport, len, w.vni, &inner);
	return say(skb, WEFT_DID_DIRECT, WEFT_ENCAPSULATED, hop->ifindex,
		   bpf_redirect_neigh(hop->ifindex, &hop->nh, sizeof(hop->nh), 0));
}

/* Hands the frame, which has no tunnel header any more, to a tenant system's device. */
static __always_inline int deliver(struct __sk_buff *skb, const struct weft_vap *to, __u32 ifindex, __u32 reason)
{
	int ret = to->kind == WEFT_KIND_VETH ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);

	return say(skb, WEFT_DID_DELIVER, reason, ifindex, ret);
}

#endif
