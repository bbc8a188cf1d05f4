/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What becomes of a frame whose destination no table holds, by its VN's choice: the agent holds it, the VN's
 * gateway carries it, or it is lost. The agent asks in each case. */
#ifndef WEFT_MISS_H
#define WEFT_MISS_H

/* Frames a second for one unknown destination: as many as are worth being held. Who moves here goes on at once with
 * all that it does, and an answer takes a few milliseconds. */
#define HELD_A_SECOND 32

/* An IP address among the MAC addresses in `asked`. */
static __always_inline void asked_ip(struct weft_vn_mac *key, __u32 vni, const struct weft_ip *ip)
{
	key->vni = vni;
	*(__u32 *)key->mac = ip->w[0] ^ ip->w[1] ^ ip->w[2] ^ ip->w[3];
	*(__u16 *)(key->mac + 4) = ip->w[3] >> 16;
	*(__u16 *)key->pad = 1;
}

/* Beside the VAP's own limit, so that one destination does not take all of it. */
static __always_inline bool may_hold(const struct weft_vn_mac *key)
{
	__u64 zero = 0, *tat = bpf_map_lookup_elem(&asked, key);

	if (!tat) {
		bpf_map_update_elem(&asked, key, &zero, BPF_NOEXIST);
		tat = bpf_map_lookup_elem(&asked, key);
	}
	return tat && take_token(tat, SECOND / HELD_A_SECOND, SECOND);
}

/* To the agent, so that it can be sent on when the answer is there. */
static __always_inline int hold(struct __sk_buff *skb, struct weft_vap *vap, const struct weft_vn_mac *key,
				__u32 reason)
{
	if (!may_hold(key))
		return handed_up(skb, vap->vni, vap->path, WEFT_PUNT_LIMITED, reason);
	return punt_whole(skb, vap, reason);
}

static __always_inline bool has_gateway(const struct weft_settings *how)
{
	return how && !is_unspecified(&how->gateway);
}

/* `reason` as it is held, by `key`. CARRY: it goes to the gateway, of which there is one; other values are what
 * the program returns. */
static __noinline int missed(struct __sk_buff *skb, struct weft_vap *vap, const struct weft_vn_mac *key, __u32 reason)
{
	__u32 seen = reason == WEFT_PUNT_ROUTE ? WEFT_PUNT_ROUTE_SEEN : WEFT_PUNT_MAC;
	struct where w;
	__u8 miss;

	if (!vap || !key)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	miss = vap->mode & WEFT_MISS;
	if (miss == WEFT_MISS_GATEWAY && !has_gateway(bpf_map_lookup_elem(&settings, &w.vni)))
		miss = 0;
	/* A trace is not held: what is sent on is no trace any more. */
	if (!miss && is_traced(skb))
		miss = WEFT_MISS_DROP;
	if (!miss)
		return hold(skb, vap, key, reason);
	if (first_this_second(key))
		punt(skb, vap, seen);
	return miss == WEFT_MISS_GATEWAY ? CARRY : drop(skb, w, WEFT_UNKNOWN_MAC);
}

/* How many tenant systems that are not here the agent is told of, a second: of one VN and of all. */
#define REPORTS_A_SECOND 100
#define REPORTS_OF_ALL 1000

/* Those and others' buckets of a VN, and of all. */
#define BUCKET_ASTRAY 0
#define BUCKET_CARRIED 1
#define BUCKET_LOGGED 2

/* Takes a token of a bucket of a VN, 0: of all, that holds as many as it gets in a second. */
__noinline bool may_report(__u32 vni, __u32 bucket, __u32 a_second)
{
	__u64 zero = 0, interval, *tat;
	struct weft_vn_mac key;

	key.vni = vni;
	*(__u32 *)key.mac = bucket;
	*(__u16 *)(key.mac + 4) = 0;
	*(__u16 *)key.pad = 3;
	tat = bpf_map_lookup_elem(&asked, &key);
	if (!tat) {
		bpf_map_update_elem(&asked, &key, &zero, BPF_NOEXIST);
		tat = bpf_map_lookup_elem(&asked, &key);
	}
	interval = SECOND / (a_second ? a_second : 1);
	return tat && take_token(tat, interval, SECOND);
}

/* Tells the agent of a frame at `off`, for a tenant system that is not here, from the NVE at `from`: of each such
 * pair once a second, not so many of one VN that others go short, and not more of all together than it can see to.
 * Not where frames for anybody come to everybody. */
__noinline int report(struct __sk_buff *skb, __u32 vni, const struct weft_ip *from, __u32 off)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);
	struct weft_vn_mac key;
	struct weft_punt *p;

	if (!from || (how && (how->mode & WEFT_LEARNS) != WEFT_LEARNS_ORACLE &&
		      (how->mode & WEFT_LEARNS) != WEFT_LEARNS_DISTRIBUTE))
		return 0;
	if (bpf_skb_load_bytes(skb, off, key.mac, 6))
		return 0;
	key.vni = vni;
	*(__u32 *)key.mac ^= from->w[0] ^ from->w[1] ^ from->w[2] ^ from->w[3];
	*(__u16 *)key.pad = 2;
	if (!first_this_second(&key))
		return 0;
	if (!may_report(vni, BUCKET_ASTRAY, REPORTS_A_SECOND) || !may_report(0, BUCKET_ASTRAY, REPORTS_OF_ALL))
		return 0;
	p = bpf_ringbuf_reserve(&punts, sizeof(*p), 0);
	if (!p)
		return 0;
	p->ifindex = 0;
	p->vni = vni;
	p->reason = WEFT_PUNT_NO_TS;
	p->len = copy_frame(skb, off, p->frame, WEFT_PUNT_BYTES);
	copy_mac(p->dst, p->frame);
	p->toward = 0;
	p->pad = 0;
	p->from = *from;
	p->rule = 0;
	bpf_ringbuf_submit(p, 0);
	count(skb, bpf_map_lookup_elem(&vns, &vni) ? vni : 0, WEFT_PUNTED, off ? WEFT_PATH_DIRECT : WEFT_PATH_DEVICE,
	      WEFT_IN);
	return 0;
}

#endif
