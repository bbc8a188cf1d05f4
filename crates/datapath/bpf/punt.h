/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Handing a frame to the agent, behind a token bucket that comes before the ring buffer. */
#ifndef WEFT_PUNT_H
#define WEFT_PUNT_H

#define SECOND 1000000000ULL
/* Generated ICMP errors per VAP (RFC 4443 section 2.4 (f)): 1,000 per second, burst 100. */
#define ICMP_INTERVAL (SECOND / 1000)
#define ICMP_WINDOW (100 * ICMP_INTERVAL)

/* The generic cell rate algorithm: one word of state, so no lock. Losing the race four times over
 * refuses, which is right: somebody else took tokens meanwhile. What runs ahead further than the window allows is
 * from before the limit was changed, and counts as a full window; one interval more may be another CPU's clock. */
__noinline bool take_token(__u64 *tat, __u64 interval, __u64 window)
{
	__u64 now = bpf_ktime_get_ns();
	int i;

	if (!tat)
		return false;
#pragma unroll
	for (i = 0; i < 4; i++) {
		__u64 old = *(volatile __u64 *)tat;
		__u64 next = (old > now ? old : now) + interval;

		if (next > now + window + 2 * interval)
			next = now + window;
		else if (next - now > window)
			return false;
		if (__sync_val_compare_and_swap(tat, old, next) == old)
			return true;
	}
	return false;
}

/* Of a punt from a VAP. */
static __always_inline void from_nobody(struct weft_ip *from)
{
	from->w[0] = 0;
	from->w[1] = 0;
	from->w[2] = 0;
	from->w[3] = 0;
}

/* What the program returns of a punt: the frame itself is dropped either way. */
static __always_inline int handed_up(struct __sk_buff *skb, __u32 vni, __u32 path, __u32 outcome, __u32 reason)
{
	count(skb, vni, outcome, path, WEFT_OUT);
	if (outcome == WEFT_PUNTED)
		return say(skb, WEFT_DID_PUNT, WEFT_PUNTED, reason, TC_ACT_SHOT);
	return say(skb, WEFT_DID_DROP, outcome, 0, TC_ACT_SHOT);
}

/* Writes the beginning of a frame from `off` on, at most `most` octets, into a record; how many those are. */
static __always_inline __u32 copy_frame(struct __sk_buff *skb, __u32 off, __u8 *to, __u32 most)
{
	__u32 len = skb->len;

	if (off > len)
		return 0;
	len -= off;
	if (len > most)
		len = most;
	asm volatile("" : "+r"(len)); /* the bound is to be of the register that the helper is given */
	if (len < ETH_LEN || len > most || bpf_skb_load_bytes(skb, off, to, len))
		return 0;
	return len;
}

_Static_assert(__builtin_offsetof(struct weft_punt, frame) == __builtin_offsetof(struct weft_held, frame), "records begin alike");

/* A frame to the agent, in a record of `size` that holds `most` octets of it: both constants. */
static __always_inline int to_agent(struct __sk_buff *skb, struct weft_vap *vap, __u32 reason, __u64 size, __u32 most)
{
	__u32 outcome = WEFT_PUNTED;
	struct weft_punt *p;
	__u32 vni, path;

	if (!vap)
		return TC_ACT_SHOT;
	vni = vap->vni;
	path = vap->path;
	if (!take_token(&vap->punt_tat, vap->punt_interval, vap->punt_window)) {
		outcome = WEFT_PUNT_LIMITED;
		goto out;
	}
	p = bpf_ringbuf_reserve(&punts, size, 0);
	if (!p) {
		outcome = WEFT_PUNT_RING_FULL;
		goto out;
	}
	p->ifindex = skb->ifindex;
	p->vni = vni;
	p->reason = reason;
	p->len = copy_frame(skb, 0, p->frame, most);
	copy_mac(p->dst, p->frame);
	p->toward = 0;
	p->pad = 0;
	from_nobody(&p->from);
	p->rule = 0;
	bpf_ringbuf_submit(p, 0);
out:
	return handed_up(skb, vni, path, outcome, reason);
}

/* The beginning of a frame. */
__noinline int punt(struct __sk_buff *skb, struct weft_vap *vap, __u32 reason)
{
	return to_agent(skb, vap, reason, sizeof(struct weft_punt), WEFT_PUNT_BYTES);
}

/* The whole of it. Of what is longer than that (segmentation offload, mostly) the beginning. */
__noinline int punt_whole(struct __sk_buff *skb, struct weft_vap *vap, __u32 reason)
{
	return to_agent(skb, vap, reason, sizeof(struct weft_held), WEFT_HELD_BYTES);
}

/* Whether nobody asked for this MAC within the last second. Two CPUs may both be told yes. */
static __always_inline bool first_this_second(const struct weft_vn_mac *key)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 *last = bpf_map_lookup_elem(&asked, key);

	if (last && now - *last < SECOND)
		return false;
	bpf_map_update_elem(&asked, key, &now, BPF_ANY);
	return true;
}

#endif
