/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* VXLAN (RFC 7348) over IPv4 and IPv6, written and stripped here or left to the VXLAN device. */
#ifndef WEFT_TUNNEL_H
#define WEFT_TUNNEL_H

#define VXLAN_PORT 4789
#define VXLAN_I 0x08
#define OUTER_TTL 64 /* unless a tunnel policy says otherwise */
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
static __always_inline void write_tail(void *at, __be16 sport, __u32 len, __u32 vni, const struct eth *inner,
				       __u32 trace)
{
	struct udphdr *udp = at;
	struct vxlan *vx = at + sizeof(*udp);

	udp->source = sport;
	udp->dest = bpf_htons(VXLAN_PORT);
	udp->len = bpf_htons(len + sizeof(*udp) + sizeof(*vx));
	udp->check = 0;
	vx->flags = bpf_htonl(VXLAN_I << 24 | trace);
	vx->vni = bpf_htonl(vni << 8);
	*(struct eth *)(vx + 1) = *inner;
}

/* Tells the VXLAN device where to. */
static __always_inline long set_tunnel(struct __sk_buff *skb, const struct weft_config *cfg, __u32 vni,
				       const struct weft_ip *rloc, __u8 ttl, __u8 ds)
{
	struct bpf_tunnel_key key;
	__u64 flags = BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT;
	__u32 i;

	__builtin_memset(&key, 0, sizeof(key));
	key.tunnel_id = vni;
	key.tunnel_ttl = ttl;
	key.tunnel_tos = ds;
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
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
}

/* A function of its own, as is `route`, for the sake of the stack: what only some frames need would
 * stand on it beside everything that is called for others. */
static __noinline int encap_device(struct __sk_buff *skb, const struct where *at, struct weft_config *cfg,
				   const struct weft_ip *rloc, const struct weft_count *amount)
{
	struct where w;

	if (!at || !cfg || !rloc || !amount)
		return TC_ACT_SHOT;
	if (is_traced(skb) && trace_stops(skb)) /* the device writes no id */
		return say(skb, WEFT_DID_STOP, WEFT_ENCAPSULATED, 0, TC_ACT_SHOT);
	w = *at;
	w.path = WEFT_PATH_DEVICE;
	if (set_tunnel(skb, cfg, w.vni, rloc, w.ttl, w.ds))
		return drop(skb, w, WEFT_KERNEL);
	count_hot(*amount, w.slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DEVICE);
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
	__u16 ds;
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

/* Looks a flow's next hop up; false where there is no route to be had here. */
static __noinline bool route(struct __sk_buff *skb, struct weft_config *cfg, const struct weft_ip *rloc,
			     struct hop *hop, const struct where *w)
{
	struct bpf_fib_lookup p;
	__u32 i;

	if (!cfg || !rloc || !hop || !w)
		return false;
	__builtin_memset(&p, 0, sizeof(p));
	p.sport = w->sport;
	p.dport = bpf_htons(VXLAN_PORT);
	if (is_v4(rloc)) {
		p.family = 2; /* AF_INET */
		p.tos = w->ds;
		p.ipv4_src = cfg->rloc4.w[3];
		p.ipv4_dst = rloc->w[3];
	} else {
		p.family = 10; /* AF_INET6 */
		p.flowinfo = bpf_htonl(w->ds << 20);
		for (i = 0; i < 4; i++) {
			p.ipv6_src[i] = cfg->rloc6.w[i];
			p.ipv6_dst[i] = rloc->w[i];
		}
	}
	if (next_hop(skb, &p, cfg->vxlan_ifindex))
		return false;
	hop->rloc = *rloc;
	hop->sport = w->sport;
	hop->ds = w->ds;
	hop->ifindex = p.ifindex;
	set_neigh(&hop->nh, &p);
	return true;
}

/* The next hop of a flow to an RLOC; null where there is no route to be had here. */
static __always_inline struct hop *find_hop(struct __sk_buff *skb, struct weft_config *cfg,
					    const struct weft_ip *rloc, const struct where *w, __u64 now)
{
	__u32 key = bpf_ntohs(w->sport) & (HOPS - 1);
	struct hop *hop = bpf_map_lookup_elem(&hops, &key);

	if (!hop)
		return 0;
	if (hop->until > now && hop->sport == w->sport && hop->ds == w->ds && same_ip(&hop->rloc, rloc))
		return hop;
	hop->until = 0;
	if (!route(skb, cfg, rloc, hop, w))
		return 0;
	hop->until = now + HOP_KEPT;
	return hop;
}

/* Makes room for the tunnel's headers. */
static __always_inline long grow(struct __sk_buff *skb, bool v4)
{
	return bpf_skb_adjust_room(skb, v4 ? GROW4 : GROW6, BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO |
					   (v4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) |
					   BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_LEN) |
					   BPF_F_ADJ_ROOM_ENCAP_L2_ETH);
}

/* Writes them, and sends the frame to its next hop. `reason` is what it counts as. */
static __always_inline int leave4(struct __sk_buff *skb, const struct where *w, const struct weft_config *cfg,
				  const struct weft_ip *to, const struct eth *inner, __u8 ecn, struct hop *hop,
				  const struct weft_count *amount, __u32 reason)
{
	__be32 src = cfg->rloc4.w[3], rloc = to->w[3];
	__u32 len = skb->len - GROW4, sum;
	__u16 first = 0x4500 | w->ds | ecn;
	struct eth *out = head(skb, ETH_LEN + GROW4);
	struct iphdr *ip;

	if (!out)
		return drop(skb, *w, WEFT_KERNEL);
	count_hot(*amount, w->slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DIRECT);
	out->h_proto = bpf_htons(ETH_P_IP);
	ip = (void *)(out + 1);
	*(__u16 *)ip = bpf_htons(first);
	ip->tot_len = bpf_htons(len + GROW4 - ETH_LEN);
	ip->id = 0;
	ip->frag_off = bpf_htons(DF);
	ip->ttl = w->ttl;
	ip->protocol = IPPROTO_UDP;
	sum = bpf_htons(first) + bpf_htons((__u16)(len + GROW4 - ETH_LEN)) + bpf_htons(DF) +
	      bpf_htons((__u16)(w->ttl << 8 | IPPROTO_UDP)) + (src & 0xffff) + (src >> 16) + (rloc & 0xffff) +
	      (rloc >> 16);
	ip->check = fold(sum);
	ip->saddr = src;
	ip->daddr = rloc;
	write_tail(ip + 1, w->sport, len, w->vni, inner, trace_id(skb));
	return say(skb, WEFT_DID_DIRECT, reason, hop->ifindex,
		   bpf_redirect_neigh(hop->ifindex, &hop->nh, sizeof(hop->nh), 0));
}

static __always_inline int leave6(struct __sk_buff *skb, const struct where *w, const struct weft_config *cfg,
				  const struct weft_ip *to, const struct eth *inner, __u8 ecn, struct hop *hop,
				  const struct weft_count *amount, __u32 reason)
{
	struct eth *out = head(skb, ETH_LEN + GROW6);
	__u32 len = skb->len - GROW6, i;
	struct ipv6hdr *ip;

	if (!out)
		return drop(skb, *w, WEFT_KERNEL);
	count_hot(*amount, w->slot, WEFT_HOT_ENCAPSULATED + WEFT_PATH_DIRECT);
	out->h_proto = bpf_htons(ETH_P_IPV6);
	ip = (void *)(out + 1);
	*(__u32 *)ip = bpf_htonl(0x60000000 | (__u32)(w->ds | ecn) << 20);
	ip->payload_len = bpf_htons(len + sizeof(struct udphdr) + sizeof(struct vxlan));
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = w->ttl;
	for (i = 0; i < 4; i++) {
		ip->saddr.in6_u.u6_addr32[i] = cfg->rloc6.w[i];
		ip->daddr.in6_u.u6_addr32[i] = to->w[i];
	}
	write_tail(ip + 1, w->sport, len, w->vni, inner, trace_id(skb));
	return say(skb, WEFT_DID_DIRECT, reason, hop->ifindex,
		   bpf_redirect_neigh(hop->ifindex, &hop->nh, sizeof(hop->nh), 0));
}

/* Frames with an IP header of the right version only. `ecn` is that header's, which the outer one takes
 * over (RFC 6040 section 4.1). The VXLAN device decides where there is no route to be had here (the
 * destination is this host, the family is off at our device), and it takes what the kernel does not
 * let a program encapsulate: a frame that has a tunnel inside already, which a tenant made. */
static __always_inline int encap_direct4(struct __sk_buff *skb, const struct where *w, struct weft_config *cfg,
					 const struct weft_ip *to, const struct eth *inner, __u8 ecn, __u64 now,
					 const struct weft_count *amount)
{
	struct hop *hop = find_hop(skb, cfg, to, w, now);

	if (!hop || grow(skb, true))
		return encap_device(skb, w, cfg, to, amount);
	return leave4(skb, w, cfg, to, inner, ecn, hop, amount, WEFT_ENCAPSULATED);
}

static __always_inline int encap_direct6(struct __sk_buff *skb, const struct where *w, struct weft_config *cfg,
					 const struct weft_ip *to, const struct eth *inner, __u8 ecn, __u64 now,
					 const struct weft_count *amount)
{
	struct hop *hop = find_hop(skb, cfg, to, w, now);

	if (!hop || grow(skb, false))
		return encap_device(skb, w, cfg, to, amount);
	return leave6(skb, w, cfg, to, inner, ecn, hop, amount, WEFT_ENCAPSULATED);
}

/* Hands the frame, which has no tunnel header any more, to a tenant system's device. A frame that came to
 * a device of ours for another MAC address is somebody else's to the kernel; older ones (before 6.15)
 * leave it so when it changes hands, and the tenant system's stack would drop it. */
static __always_inline int deliver(struct __sk_buff *skb, const struct weft_vap *to, __u32 ifindex, __u32 reason)
{
	int ret;

	if (is_traced(skb) && trace_stops(skb))
		return say(skb, WEFT_DID_DELIVER, reason, ifindex, TC_ACT_SHOT);
	if (to->kind == WEFT_KIND_VETH) {
		if (skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(skb, PACKET_HOST);
		ret = bpf_redirect_peer(ifindex, 0);
	} else {
		ret = bpf_redirect(ifindex, 0);
	}
	return say(skb, WEFT_DID_DELIVER, reason, ifindex, ret);
}

#endif
