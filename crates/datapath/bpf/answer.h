/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Frames made here and sent back to the tenant system: ARP replies, Neighbor Advertisements, and the
 * ICMP errors that tell it the MTU. */
#ifndef WEFT_ANSWER_H
#define WEFT_ANSWER_H

struct arp {
	__be16 hrd, pro;
	__u8 hln, pln;
	__be16 op;
	__u8 sha[6];
	__u8 spa[4];
	__u8 tha[6];
	__u8 tpa[4];
} __attribute__((packed));

/* Ethernet and IPv4, a request or a reply. */
static __always_inline bool is_arp(const struct arp *arp)
{
	return arp->hrd == bpf_htons(1) && arp->pro == bpf_htons(ETH_P_IP) && arp->hln == 6 && arp->pln == 4 &&
	       (arp->op == bpf_htons(1) || arp->op == bpf_htons(2));
}

static __always_inline int reply(struct __sk_buff *skb, struct where w, __u32 reason)
{
	count(skb, w.vni, reason, w.path, w.direction);
	return say(skb, WEFT_DID_REPLY, reason, skb->ifindex, bpf_redirect(skb->ifindex, 0));
}

static __always_inline __u16 fold(__s64 sum)
{
	__u32 s = (__u32)sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* RFC 826, in place: padding stays what it was. */
static __always_inline int answer_arp(struct __sk_buff *skb, struct where w, const __u8 *mac)
{
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct arp));
	struct arp *arp;
	__u32 spa, tpa;

	if (!eth)
		return drop(skb, w, WEFT_MALFORMED);
	arp = (void *)(eth + 1);
	copy_mac(eth->h_dest, eth->h_source);
	copy_mac(eth->h_source, mac);
	arp->op = bpf_htons(2);
	copy_mac(arp->tha, arp->sha);
	copy_mac(arp->sha, mac);
	__builtin_memcpy(&spa, arp->spa, 4);
	__builtin_memcpy(&tpa, arp->tpa, 4);
	__builtin_memcpy(arp->spa, &tpa, 4);
	__builtin_memcpy(arp->tpa, &spa, 4);
	return reply(skb, w, WEFT_ANSWERED);
}

/* A Neighbor Advertisement with its target link-layer address option. */
struct advert {
	struct eth eth;
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 sum;
	__u8 flags, reserved[3];
	struct in6_addr target;
	__u8 option, option_len;
	__u8 tlla[6];
} __attribute__((packed));

#define NA_ROUTER 0x80
#define NA_SOLICITED 0x40
#define NA_OVERRIDE 0x20

/* RFC 4861 section 7.2.4, for the owner. R is set because its loss would make hosts forget a router,
 * O if the MAC is the owner's own and not that of its NVE. To a DAD probe the answer goes to all nodes, with S clear. */
static __noinline int answer_ns(struct __sk_buff *skb, struct weft_vap *vap, const __u8 *mac)
{
	struct advert *a;
	struct where w;
	__u32 dad, i;
	__s64 sum;

	if (!vap || !mac)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	/* Whatever options the solicitation had, this is the length of the answer. */
	if (bpf_skb_change_tail(skb, sizeof(*a), 0))
		return drop(skb, w, WEFT_KERNEL);
	a = head(skb, sizeof(*a));
	if (!a)
		return drop(skb, w, WEFT_KERNEL);
	dad = !(a->ip.saddr.in6_u.u6_addr32[0] | a->ip.saddr.in6_u.u6_addr32[1] |
		a->ip.saddr.in6_u.u6_addr32[2] | a->ip.saddr.in6_u.u6_addr32[3]);
	for (i = 0; i < 4; i++) {
		a->ip.daddr.in6_u.u6_addr32[i] = a->ip.saddr.in6_u.u6_addr32[i];
		a->ip.saddr.in6_u.u6_addr32[i] = a->target.in6_u.u6_addr32[i];
	}
	if (dad) {
		a->ip.daddr.in6_u.u6_addr32[0] = bpf_htonl(0xff020000);
		a->ip.daddr.in6_u.u6_addr32[3] = bpf_htonl(1);
		*(__u16 *)&a->eth.h_dest[0] = bpf_htons(0x3333);
		*(__u16 *)&a->eth.h_dest[2] = 0;
		*(__u16 *)&a->eth.h_dest[4] = bpf_htons(1);
	} else {
		copy_mac(a->eth.h_dest, a->eth.h_source);
	}
	copy_mac(a->eth.h_source, mac);
	*(__u32 *)&a->ip = bpf_htonl(0x60000000);
	a->ip.payload_len = bpf_htons(NS_LEN + 8);
	a->ip.nexthdr = IPPROTO_ICMPV6;
	a->ip.hop_limit = 255;
	a->type = 136;
	a->code = 0;
	a->sum = 0;
	a->flags = (dad ? NA_ROUTER : NA_ROUTER | NA_SOLICITED) | (is_node(mac) ? 0 : NA_OVERRIDE);
	a->reserved[0] = 0;
	a->reserved[1] = 0;
	a->reserved[2] = 0;
	a->option = 2;
	a->option_len = 1;
	copy_mac(a->tlla, mac);
	sum = bpf_csum_diff(0, 0, (void *)&a->ip.saddr, 32, bpf_htonl(NS_LEN + 8) + bpf_htonl(IPPROTO_ICMPV6));
	sum = bpf_csum_diff(0, 0, (void *)&a->type, NS_LEN + 8, sum);
	a->sum = fold(sum);
	return reply(skb, w, WEFT_ANSWERED);
}

#define V4_QUOTE 548 /* a 576-octet ICMP message (RFC 1812 section 4.3.2.3) */
#define V6_QUOTE 512

struct icmp4_error {
	struct eth eth;
	struct iphdr ip;
	__u8 type, code;
	__be16 sum;
	__be16 unused, mtu;
} __attribute__((packed));

struct icmp6_error {
	struct eth eth;
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 sum;
	__be32 mtu;
} __attribute__((packed));

/* Octets of an ICMP error before what it quotes. */
#define ICMP_LEN 8

static __always_inline __u32 fold16(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Whose checksum the sender left to its device, and what is there instead: the pseudo header's sum.
 * The kernel remembers that such a checksum is to be made, also of the error made from the packet here,
 * and makes it over the part that is quoted when the error goes out: a sum over the error has to count
 * with that. There is no asking the kernel, but a true checksum is the pseudo header's sum once in
 * 65,536 times only. */
struct unsummed {
	__u16 is, field;
};

static __always_inline struct unsummed find_unsummed(struct __sk_buff *skb, const struct l4 *l4, __u64 pseudo)
{
	__u32 at = l4->proto == IPPROTO_TCP ? 16 : 6;
	struct unsummed u;

	u.is = 0;
	u.field = 0;
	if (l4->later || (l4->proto != IPPROTO_TCP && l4->proto != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(skb, l4->off + at, &u.field, 2))
		return u;
	u.is = fold16(pseudo + bpf_htonl(skb->len - l4->off) + bpf_htonl(l4->proto)) == u.field;
	return u;
}

/* `sum` over a message once the checksum in its quote is made, which `inner` of it goes into. */
static __always_inline __u64 once_summed(struct unsummed u, __u64 sum, __u64 inner)
{
	__u32 made = ~fold16(inner) & 0xffff;

	if (!u.is)
		return sum;
	return sum + (~u.field & 0xffff) + (made ? made : 0xffff);
}

/* Makes an IP packet that is too big the first `quote` octets of itself behind `grow` octets of room.
 * A constant new length is safe: what is too big is longer. It also ends being GSO. */
static __always_inline bool quote_it(struct __sk_buff *skb, struct weft_vap *vap, struct where w, __u32 quote,
				     __u32 grow)
{
	/* Either way, as it came. */
	count(skb, w.vni, WEFT_TOO_BIG, w.path, w.direction);
	if (skb->len < ETH_LEN + quote || !take_token(&vap->icmp_tat, ICMP_INTERVAL, ICMP_WINDOW))
		return false;
	return !bpf_skb_change_tail(skb, ETH_LEN + quote, 0) &&
	       !bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, 0);
}

static __always_inline int untold(struct __sk_buff *skb)
{
	return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
}

static __always_inline int tell(struct __sk_buff *skb)
{
	return say(skb, WEFT_DID_REPLY, WEFT_TOO_BIG, skb->ifindex, bpf_redirect(skb->ifindex, 0));
}

/* The Ethernet header back to where it came from: making room has left it in front. */
static __always_inline void turn(struct eth *eth)
{
	__u8 from[6];

	copy_mac(from, eth->h_source);
	copy_mac(eth->h_source, eth->h_dest);
	copy_mac(eth->h_dest, from);
}

static __always_inline __u64 sum_of(const void *at, __u32 len)
{
	return (__u32)bpf_csum_diff(0, 0, (void *)at, len, 0);
}

/* Fragmentation needed (RFC 1191) from the destination's address, which every host accepts. Sent
 * whether DF is set or not: the NVE never fragments, and silence would be a black hole. */
static __noinline int answer_frag_needed(struct __sk_buff *skb, struct weft_vap *vap, const struct l4 *l4)
{
	struct icmp4_error *e = head(skb, ETH_LEN + sizeof(struct iphdr));
	struct iphdr *quoted;
	struct unsummed u;
	struct where w;
	__u64 sum;

	if (!vap || !l4)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!e)
		return drop(skb, w, WEFT_TOO_BIG);
	u = find_unsummed(skb, l4, (__u64)e->ip.saddr + e->ip.daddr);
	if (!quote_it(skb, vap, w, V4_QUOTE, sizeof(e->ip) + ICMP_LEN))
		return untold(skb);
	e = head(skb, ETH_LEN + sizeof(e->ip) + ICMP_LEN + V4_QUOTE);
	if (!e)
		return untold(skb);
	quoted = (void *)(e + 1);
	turn(&e->eth);
	*(__u16 *)&e->ip = bpf_htons(0x45c0); /* precedence 6 (RFC 1812 section 4.3.2.5) */
	e->ip.tot_len = bpf_htons(sizeof(e->ip) + ICMP_LEN + V4_QUOTE);
	e->ip.id = 0;
	e->ip.frag_off = 0;
	e->ip.ttl = 64;
	e->ip.protocol = IPPROTO_ICMP;
	e->ip.check = 0;
	e->ip.saddr = quoted->daddr;
	e->ip.daddr = quoted->saddr;
	e->ip.check = ~fold16(sum_of(&e->ip, sizeof(e->ip)));
	e->type = 3;
	e->code = 4;
	e->sum = 0;
	e->unused = 0;
	e->mtu = bpf_htons(vap->mtu);
	/* One call takes 512 octets at most. The quoted IP header is a sum of nothing by its own checksum. */
	sum = sum_of(quoted, 512) + sum_of((void *)quoted + 512, V4_QUOTE - 512);
	e->sum = ~fold16(once_summed(u, sum, sum) + sum_of(&e->type, ICMP_LEN));
	return tell(skb);
}

/* Packet Too Big (RFC 4443 section 3.2), likewise. */
static __noinline int answer_packet_too_big(struct __sk_buff *skb, struct weft_vap *vap, const struct l4 *l4)
{
	struct icmp6_error *e = head(skb, ETH_LEN + sizeof(struct ipv6hdr));
	struct ipv6hdr *quoted;
	struct unsummed u;
	struct where w;
	__u64 sum, inner;
	__u32 i;

	if (!vap || !l4)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!e)
		return drop(skb, w, WEFT_TOO_BIG);
	u = find_unsummed(skb, l4, sum_of(&e->ip.saddr, 32));
	/* Behind extension headers the part that goes into it is not told apart below. */
	if (!l4->direct)
		u.is = 0;
	if (!quote_it(skb, vap, w, V6_QUOTE, sizeof(e->ip) + ICMP_LEN))
		return untold(skb);
	e = head(skb, ETH_LEN + sizeof(e->ip) + ICMP_LEN + V6_QUOTE);
	if (!e)
		return untold(skb);
	quoted = (void *)(e + 1);
	turn(&e->eth);
	*(__u32 *)&e->ip = bpf_htonl(0x60000000);
	e->ip.payload_len = bpf_htons(ICMP_LEN + V6_QUOTE);
	e->ip.nexthdr = IPPROTO_ICMPV6;
	e->ip.hop_limit = 64;
	for (i = 0; i < 4; i++) {
		e->ip.saddr.in6_u.u6_addr32[i] = quoted->daddr.in6_u.u6_addr32[i];
		e->ip.daddr.in6_u.u6_addr32[i] = quoted->saddr.in6_u.u6_addr32[i];
	}
	e->type = 2;
	e->code = 0;
	e->sum = 0;
	e->mtu = bpf_htonl(vap->mtu);
	inner = sum_of(quoted + 1, V6_QUOTE - sizeof(*quoted));
	sum = once_summed(u, inner + sum_of(quoted, sizeof(*quoted)), inner) + sum_of(&e->type, ICMP_LEN);
	/* The pseudo header's. */
	sum += sum_of(&e->ip.saddr, 32) + bpf_htonl(ICMP_LEN + V6_QUOTE) + bpf_htonl(IPPROTO_ICMPV6);
	e->sum = ~fold16(sum);
	return tell(skb);
}

#endif
