/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* How much may go to and from a VAP: a token bucket each way. */
#ifndef WEFT_METER_H
#define WEFT_METER_H

/* The octets that a frame without a tunnel header has on the wire: each packet that a GSO frame will become has its
 * own headers, those of IPv6 extensions included. */
static __always_inline __u32 wire_octets(struct __sk_buff *skb)
{
	__u32 gso = skb->gso_size, len = skb->len, headers = ETH_LEN, protocol;
	__u8 ip[10], offset;
	__be16 ethertype;
	struct l4 l4;

	if (!gso || bpf_skb_load_bytes(skb, ETH_LEN - 2, &ethertype, 2) || bpf_skb_load_bytes(skb, ETH_LEN, ip, 10))
		return len;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		headers += (ip[0] & 15) * 4;
		protocol = ip[9];
	} else {
		if (!skip_extensions(skb, ip[6], len, &l4))
			return len;
		headers = l4.off;
		protocol = l4.proto;
	}
	if (protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, headers + 12, &offset, 1))
			return len;
		headers += (offset >> 4) * 4;
	} else {
		headers += sizeof(struct udphdr);
	}
	if (len <= headers + gso)
		return len;
	return len + (len - headers - 1) / gso * headers;
}

/* Whether a frame is more than may pass, and has to be dropped. The generic cell rate algorithm: one word of state, so
 * no lock. A frame that is larger than the burst waits for a full bucket and owes the rest, or it would never pass. A
 * race lost so often means that others took tokens meanwhile. */
__noinline bool over_rate(struct __sk_buff *skb, struct weft_meter *m)
{
	__u64 cost, slack, old, now, from;
	int i;

	if (!m)
		return false;
	if (!m->rate)
		return false;
	cost = wire_octets(skb) * m->octet >> m->shift;
	slack = cost < m->window ? m->window - cost : 0;
#pragma unroll
	for (i = 0; i < 8; i++) {
		/* In this order: nobody's clock is ahead of what was read before. */
		old = *(volatile __u64 *)&m->tat;
		now = bpf_ktime_get_ns();
		from = old > now ? old : now;
		if (from - now > slack)
			return true;
		if (__sync_val_compare_and_swap(&m->tat, old, from + cost) == old)
			return false;
	}
	return true;
}

/* A frame from a VAP, */
static __always_inline bool sends_too_much(struct __sk_buff *skb, struct weft_vap *vap)
{
	return vap->send.rate && over_rate(skb, &vap->send);
}

/* and one for it. */
static __always_inline bool gets_too_much(struct __sk_buff *skb, struct weft_vap *vap)
{
	return vap->receive.rate && over_rate(skb, &vap->receive);
}

#endif
