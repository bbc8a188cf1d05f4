/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Reading frames: headers made linear, addresses, the way through IPv6 extension headers. */
#ifndef WEFT_PACKET_H
#define WEFT_PACKET_H

#define ETH_LEN 14
#define NS_LEN 24 /* Neighbor Solicitation and Advertisement without options */

#ifndef ETH_P_8021AD
#define ETH_P_8021AD 0x88A8
#endif

/* As linux/if_ether.h's, which is packed and would be copied octet by octet. */
struct eth {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
};

/* The first `n` octets, or null if the frame is shorter. `n` must be a constant. */
static __always_inline void *head(struct __sk_buff *skb, __u32 n)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (data + n <= end)
		return data;
	if (skb->len < n || bpf_skb_pull_data(skb, n))
		return 0;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	return data + n <= end ? data : 0;
}

/* MAC addresses by u32 + u16: a comparison of six octets would become a call to memcmp. */
static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	return *(const __u16 *)a == *(const __u16 *)b && *(const __u16 *)(a + 2) == *(const __u16 *)(b + 2) &&
	       *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	*(__u16 *)to = *(const __u16 *)from;
	*(__u16 *)(to + 2) = *(const __u16 *)(from + 2);
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

/* MacAddr::of_node */
static __always_inline bool is_node(const __u8 *mac)
{
	return mac[0] == 0x0a && mac[1] == 0x57;
}

static __always_inline __u32 node_of(const __u8 *mac)
{
	return (__u32)mac[2] << 24 | mac[3] << 16 | mac[4] << 8 | mac[5];
}

static __always_inline bool distributes(__u8 mode)
{
	return (mode & WEFT_LEARNS) == WEFT_LEARNS_DISTRIBUTE;
}

/* MacAddr::anycast(vni) */
static __always_inline bool is_anycast(const __u8 *mac, __u32 vni)
{
	return mac[0] == 0x06 && mac[1] == 0x57 && !mac[2] && mac[3] == (vni >> 16 & 0xff) &&
	       mac[4] == (vni >> 8 & 0xff) && mac[5] == (vni & 0xff);
}

static __always_inline void ip_from_v4(struct weft_ip *ip, __be32 v4)
{
	ip->w[0] = 0;
	ip->w[1] = 0;
	ip->w[2] = bpf_htonl(0xffff);
	ip->w[3] = v4;
}

static __always_inline void ip_from_v6(struct weft_ip *ip, const struct in6_addr *v6)
{
	ip->w[0] = v6->in6_u.u6_addr32[0];
	ip->w[1] = v6->in6_u.u6_addr32[1];
	ip->w[2] = v6->in6_u.u6_addr32[2];
	ip->w[3] = v6->in6_u.u6_addr32[3];
}

static __always_inline bool same_ip(const struct weft_ip *a, const struct weft_ip *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline bool is_unspecified(const struct weft_ip *ip)
{
	return !(ip->w[0] | ip->w[1] | ip->w[2] | ip->w[3]);
}

static __always_inline bool is_v4(const struct weft_ip *ip)
{
	return !ip->w[0] && !ip->w[1] && ip->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_vlan(__be16 proto)
{
	/* The last two are what stacked tags were before 802.1ad. */
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) ||
	       proto == bpf_htons(0x9100) || proto == bpf_htons(0x9200);
}

/* Where an IP packet ends in its frame, by its length field less what that does not count. The kernel
 * writes 0 for a GSO frame of more than 64 KiB. */
static __always_inline __u32 packet_end(struct __sk_buff *skb, __u32 len, __u32 header)
{
	return !len && skb->gso_size ? skb->len : ETH_LEN + header + len;
}

struct nd {
	struct eth eth;
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 sum;
	__u32 reserved;
	struct in6_addr target;
} __attribute__((packed));

#define ND_NS 135
#define ND_NA 136

#define OPTION_LEN 0xffff
#define OPTION_OF_KIND 0x10000
#define OPTION_FOREIGN 0x20000

static __always_inline __u64 mac_number(const __u8 *mac)
{
	return *(const __u16 *)mac | (__u64)*(const __u16 *)(mac + 2) << 16 | (__u64)*(const __u16 *)(mac + 4) << 32;
}

/* What is behind the IP header. */
struct l4 {
	__u32 off;   /* from the start of the frame */
	__u8 proto;
	__u8 later;  /* a fragment other than the first: no header there */
	__u8 direct; /* it follows the IPv6 header with nothing between */
	__u8 ecn;    /* of the IP header */
	__u32 end;   /* of the packet, where it was asked for */
	__u32 id;    /* of a fragment, likewise */
	__u8 first;  /* likewise: the first one of several */
	__u8 v4;     /* likewise: behind an IPv4 header */
	__u8 pad[2];
};

/* IPv6 extension headers that may come before another header. */
static __always_inline bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT || next == IPPROTO_AH;
}

/* Follows at most four extension headers from `off` on, which end before `end`, where the packet does. False: no
 * upper-layer header within reach, and the frame is not a later fragment either (RFC 7112: a first
 * fragment holds the whole chain). */
static __always_inline bool skip_from(struct __sk_buff *skb, __u32 off, __u8 next, __u32 end, struct l4 *l4)
{
	int i;

	l4->later = 0;
	l4->first = 0;
	l4->direct = 1;
#pragma unroll
	for (i = 0; i < 5; i++) {
		__u8 ext[8];

		if (!is_extension(next)) {
			l4->off = off;
			l4->proto = next;
			return true;
		}
		if (i == 4 || off + 8 > end || bpf_skb_load_bytes(skb, off, ext, 8))
			return false;
		l4->direct = 0;
		if (next == IPPROTO_FRAGMENT) {
			l4->id = *(__u32 *)(ext + 4);
			l4->first = ext[3] & 1;
			if ((ext[2] << 8 | ext[3]) & 0xfff8) {
				l4->off = off + 8;
				l4->proto = ext[0];
				l4->later = 1;
				l4->first = 0;
				return true;
			}
			off += 8;
		} else if (next == IPPROTO_AH) {
			off += (ext[1] + 2) * 4;
		} else {
			off += (ext[1] + 1) * 8;
		}
		next = ext[0];
	}
	return false;
}

/* The same behind a frame's IPv6 header. */
static __always_inline bool skip_extensions(struct __sk_buff *skb, __u8 next, __u32 end, struct l4 *l4)
{
	return skip_from(skb, ETH_LEN + sizeof(struct ipv6hdr), next, end, l4);
}

/* Whether an RLOC is another NVE's than the one that a frame came from. */
static __always_inline bool elsewhere(const struct weft_ip *rloc, const struct weft_ip *from, __u32 node)
{
	struct weft_peer *peer;

	if (same_ip(rloc, from))
		return false;
	peer = bpf_map_lookup_elem(&peers, rloc);
	return !peer || peer->node != node;
}

#endif
