/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What the tunnel policy of a VAP says of the outer headers of what it sends. */
#ifndef WEFT_OUTER_H
#define WEFT_OUTER_H

/* The DS field without ECN, which follows RFC 6040 in any case: fixed, or the inner packet's (RFC 2983). */
static __always_inline __u8 outer_ds(struct __sk_buff *skb, const struct weft_vap *vap)
{
	__u8 two[2];

	if (vap->dscp != WEFT_DSCP_COPY)
		return vap->dscp << 2;
	if ((skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)) ||
	    bpf_skb_load_bytes(skb, ETH_LEN, two, 2))
		return 0;
	return (skb->protocol == bpf_htons(ETH_P_IP) ? two[1] : two[0] << 4 | two[1] >> 4) & 0xfc;
}

/* The RLOC that a flow goes to: of two by its hash, as their weights say (RFC 9301 section 5.4). A function of its own
 * for the sake of the stack. */
static __noinline const struct weft_ip *rloc_of(struct __sk_buff *skb, const struct weft_location *at)
{
	struct weft_peer *peer;
	__u32 hash;

	if (!at)
		return 0;
	/* Mixed, because its high bits choose the source port: each RLOC gets all of them. */
	hash = bpf_get_hash_recalc(skb) * 0x9e3779b1U;
	if (hash >= at->other)
		return &at->rloc;
	peer = bpf_map_lookup_elem(&peers, &at->rloc);
	return peer && !is_unspecified(&peer->other) ? &peer->other : &at->rloc;
}

/* Flows are spread over the range by their hash. The VXLAN device has its own way of choosing. */
static __always_inline __be16 source_port(struct __sk_buff *skb, const struct weft_vap *vap)
{
	__u64 hash = bpf_get_hash_recalc(skb);

	return bpf_htons(vap->port + (__u16)(hash * (vap->more_ports + 1U) >> 32));
}

#endif
