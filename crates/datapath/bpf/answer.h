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

struct pseudo {
	__u32 src[4], dst[4];
	__be32 len, next;
};

#define NA_ROUTER 0x80
#define NA_SOLICITED 0x40
#define NA_OVERRIDE 0x20

/* RFC 4861 section 7.2.4, for the owner. R is set because its loss would make hosts forget a router,
 * O because the MAC is the owner's own. To a DAD probe the answer goes to all nodes, with S clear. */
static __noinline int answer_ns(struct __sk_buff *skb, struct weft_vap *vap, struct weft_neighbour *n)
{
	struct advert *a;
	struct pseudo p;
	struct where w;
	__u32 dad, i;
	__s64 sum;

	if (!vap || !n)
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
		p.dst[i] = a->ip.saddr.in6_u.u6_addr32[i];
		p.src[i] = a->target.in6_u.u6_addr32[i];
	}
	if (dad) {
		p.dst[0] = bpf_htonl(0xff020000);
		p.dst[3] = bpf_htonl(1);
		*(__u16 *)&a->eth.h_dest[0] = bpf_htons(0x3333);
		*(__u16 *)&a->eth.h_dest[2] = 0;
		*(__u16 *)&a->eth.h_dest[4] = bpf_htons(1);
	} else {
		copy_mac(a->eth.h_dest, a->eth.h_source);
	}
	p.len = bpf_htonl(NS_LEN + 8);
	p.next = bpf_htonl(IPPROTO_ICMPV6);
	copy_mac(a->eth.h_source, n->mac);
	*(__u32 *)&a->ip = bpf_htonl(0x60000000);
	a->ip.payload_len = bpf_htons(NS_LEN + 8);
	a->ip.nexthdr = IPPROTO_ICMPV6;
	a->ip.hop_limit = 255;
	for (i = 0; i < 4; i++) {
		a->ip.saddr.in6_u.u6_addr32[i] = p.src[i];
		a->ip.daddr.in6_u.u6_addr32[i] = p.dst[i];
	}
	a->type = 136;
	a->code = 0;
	a->sum = 0;
	a->flags = dad ? NA_ROUTER | NA_OVERRIDE : NA_ROUTER | NA_SOLICITED | NA_OVERRIDE;
	a->reserved[0] = 0;
	a->reserved[1] = 0;
	a->reserved[2] = 0;
	a->option = 2;
	a->option_len = 1;
	copy_mac(a->tlla, n->mac);
	sum = bpf_csum_diff(0, 0, (void *)&p, sizeof(p), 0);
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

/* Fragmentation needed (RFC 1191) from the destination's address, which every host accepts. Sent
 * whether DF is set or not: the NVE never fragments, and silence would be a black hole. */
static __noinline int answer_frag_needed(struct __sk_buff *skb, struct weft_vap *vap)
{
	struct icmp4_error *e;
	struct where w;
	struct eth eth;
	__be32 src, dst;
	__u16 mtu;
	__s64 sum;

	if (!vap)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	mtu = vap->mtu;
	if (skb->len < ETH_LEN + V4_QUOTE || !take_token(&vap->icmp_tat, ICMP_INTERVAL, ICMP_WINDOW))
		return drop(skb, w, WEFT_TOO_BIG);
	count(skb, w.vni, WEFT_TOO_BIG, w.path, w.direction);
	/* A constant new length is safe: what is too big is longer. It also ends being GSO. */
	if (bpf_skb_change_tail(skb, ETH_LEN + V4_QUOTE, 0))
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	e = head(skb, ETH_LEN + sizeof(struct iphdr));
	if (!e)
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	copy_mac(eth.h_dest, e->eth.h_source);
	copy_mac(eth.h_source, e->eth.h_dest);
	src = e->ip.daddr;
	dst = e->ip.saddr;
	if (bpf_skb_adjust_room(skb, 28, BPF_ADJ_ROOM_MAC, 0))
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	e = head(skb, ETH_LEN + 28 + V4_QUOTE);
	if (!e)
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	copy_mac(e->eth.h_dest, eth.h_dest);
	copy_mac(e->eth.h_source, eth.h_source);
	e->eth.h_proto = bpf_htons(ETH_P_IP);
	*(__u16 *)&e->ip = bpf_htons(0x45c0); /* precedence 6 (RFC 1812 section 4.3.2.5) */
	e->ip.tot_len = bpf_htons(28 + V4_QUOTE);
	e->ip.id = 0;
	e->ip.frag_off = 0;
	e->ip.ttl = 64;
	e->ip.protocol = IPPROTO_ICMP;
	e->ip.check = 0;
	e->ip.saddr = src;
	e->ip.daddr = dst;
	e->ip.check = fold(bpf_csum_diff(0, 0, (void *)&e->ip, sizeof(e->ip), 0));
	e->type = 3;
	e->code = 4;
	e->sum = 0;
	e->unused = 0;
	e->mtu = bpf_htons(mtu);
	/* One call takes 512 octets at most. */
	sum = bpf_csum_diff(0, 0, (void *)&e->type, 512, 0);
	sum = bpf_csum_diff(0, 0, (void *)&e->type + 512, 8 + V4_QUOTE - 512, sum);
	e->sum = fold(sum);
	return say(skb, WEFT_DID_REPLY, WEFT_TOO_BIG, skb->ifindex, bpf_redirect(skb->ifindex, 0));
}

/* Packet Too Big (RFC 4443 section 3.2), likewise. */
static __noinline int answer_packet_too_big(struct __sk_buff *skb, struct weft_vap *vap)
{
	struct icmp6_error *e;
	struct where w;
	struct eth eth;
	struct pseudo p;
	__u32 i;
	__u16 mtu;
	__s64 sum;

	if (!vap)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	mtu = vap->mtu;
	if (skb->len < ETH_LEN + V6_QUOTE || !take_token(&vap->icmp_tat, ICMP_INTERVAL, ICMP_WINDOW))
		return drop(skb, w, WEFT_TOO_BIG);
	count(skb, w.vni, WEFT_TOO_BIG, w.path, w.direction);
	if (bpf_skb_change_tail(skb, ETH_LEN + V6_QUOTE, 0))
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	e = head(skb, ETH_LEN + sizeof(struct ipv6hdr));
	if (!e)
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	copy_mac(eth.h_dest, e->eth.h_source);
	copy_mac(eth.h_source, e->eth.h_dest);
	for (i = 0; i < 4; i++) {
		p.src[i] = e->ip.daddr.in6_u.u6_addr32[i];
		p.dst[i] = e->ip.saddr.in6_u.u6_addr32[i];
	}
	p.len = bpf_htonl(8 + V6_QUOTE);
	p.next = bpf_htonl(IPPROTO_ICMPV6);
	if (bpf_skb_adjust_room(skb, 48, BPF_ADJ_ROOM_MAC, 0))
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	e = head(skb, ETH_LEN + 48 + V6_QUOTE);
	if (!e)
		return say(skb, WEFT_DID_DROP, WEFT_TOO_BIG, 0, TC_ACT_SHOT);
	copy_mac(e->eth.h_dest, eth.h_dest);
	copy_mac(e->eth.h_source, eth.h_source);
	e->eth.h_proto = bpf_htons(ETH_P_IPV6);
	*(__u32 *)&e->ip = bpf_htonl(0x60000000);
	e->ip.payload_len = bpf_htons(8 + V6_QUOTE);
	e->ip.nexthdr = IPPROTO_ICMPV6;
	e->ip.hop_limit = 64;
	for (i = 0; i < 4; i++) {
		e->ip.saddr.in6_u.u6_addr32[i] = p.src[i];
		e->ip.daddr.in6_u.u6_addr32[i] = p.dst[i];
	}
	e->type = 2;
	e->code = 0;
	e->sum = 0;
	e->mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(0, 0, (void *)&p, sizeof(p), 0);
	sum = bpf_csum_diff(0, 0, (void *)&e->type, 512, sum);
	sum = bpf_csum_diff(0, 0, (void *)&e->type + 512, 8 + V6_QUOTE - 512, sum);
	e->sum = fold(sum);
	return say(skb, WEFT_DID_REPLY, WEFT_TOO_BIG, skb->ifindex, bpf_redirect(skb->ifindex, 0));
}

#endif
