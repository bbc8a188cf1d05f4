/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Traces: a packet that the agent sends as if a tenant system had, of which the programs tell each step. On a host it is
 * known by its mark, which a tenant system's frame never has: it comes from another network namespace, or from a TAP. On
 * the underlay it is known by an id in VXLAN's reserved bits, if the agent was told of it before; otherwise those say
 * nothing (RFC 7348 section 5). Where it would be handed over, or to an NVE that knows nothing of it, it ends, unless it
 * is to be delivered. */
#ifndef WEFT_TRACE_H
#define WEFT_TRACE_H

__noinline int trace_tell(struct __sk_buff *skb, __u32 kind, __u32 a, __u32 b, const struct weft_ip *ip)
{
	struct weft_step *s = bpf_ringbuf_reserve(&steps, sizeof(*s), 0);

	if (!s)
		return 0;
	s->id = skb->mark & WEFT_TRACE_ID;
	s->kind = kind;
	s->ifindex = skb->ifindex;
	s->a = a;
	s->b = b;
	s->pad = 0;
	if (ip)
		s->ip = *ip;
	else
		from_nobody(&s->ip);
	bpf_ringbuf_submit(s, 0);
	return 0;
}

/* What became of it. Where it goes on to somebody else the mark is nobody's business any more; whoever is handed a frame
 * beside (a punt) does not end it. */
__noinline int trace_end(struct __sk_buff *skb, __u32 did, __u32 reason, __u32 target)
{
	trace_tell(skb, WEFT_STEP_END, did << 16 | (reason & 0xffff), target, 0);
	if (did != WEFT_DID_PASS && did != WEFT_DID_PUNT)
		skb->mark = 0;
	return 0;
}

/* What its VXLAN header says: 0 of other frames. */
static __always_inline __u32 trace_id(const struct __sk_buff *skb)
{
	return is_traced(skb) ? skb->mark & WEFT_TRACE_ID : 0;
}

static __noinline struct weft_trace *find_trace(__u32 mark)
{
	__u32 id = mark & WEFT_TRACE_ID;

	return bpf_map_lookup_elem(&traces, &id);
}

/* The way into every program: a mark that looks like a trace's and is none is taken away. */
static __always_inline void trace_enter(struct __sk_buff *skb)
{
	if (is_traced(skb) && !find_trace(skb->mark))
		skb->mark = 0;
}

/* Whether it is not to be handed over. */
static __noinline bool trace_stops(struct __sk_buff *skb)
{
	struct weft_trace *t = find_trace(skb->mark);

	return t && !(t->flags & WEFT_TRACE_DELIVERS);
}

/* Before it leaves for the NVE at `rloc`: only for the one that was told of it. Another value than GO_ON is what the
 * program returns. */
static __noinline int trace_leaves(struct __sk_buff *skb, const struct weft_ip *rloc)
{
	struct weft_trace *t = find_trace(skb->mark);
	struct weft_peer *peer;

	if (!rloc)
		return TC_ACT_SHOT;
	/* By whichever of its RLOCs. */
	peer = bpf_map_lookup_elem(&peers, rloc);
	if (t && peer && !(t->flags & WEFT_TRACE_ARRIVES) && !elsewhere(&t->rloc, rloc, peer->node))
		return GO_ON;
	return say(skb, WEFT_DID_STOP, WEFT_ENCAPSULATED, 0, TC_ACT_SHOT);
}

/* A frame from an NVE, `off` octets before its VXLAN header's, that has any of its reserved bits set: traced if this NVE
 * was told of it, by this sender and for this VN. They are cleared in any case, as the VXLAN device does not ignore them. */
static __noinline int trace_arrives(struct __sk_buff *skb, const struct weft_ip *from, __u32 vni, __u32 off)
{
	struct weft_trace *t;
	struct weft_peer *peer;
	__be32 was, is;
	__u8 ttl = 0;
	__u32 id;

	if (!from || bpf_skb_load_bytes(skb, off, &was, 4))
		return 0;
	id = bpf_ntohl(was) & WEFT_TRACE_ID;
	is = was & ~bpf_htonl(WEFT_TRACE_ID);
	/* The helpers know whether there is a checksum, and whether somebody's hardware has yet to make it. */
	bpf_l4_csum_replace(skb, off - 2, was, is, BPF_F_MARK_MANGLED_0 | 4);
	bpf_skb_store_bytes(skb, off, &is, 4, BPF_F_RECOMPUTE_CSUM);
	t = find_trace(id);
	if (!t || !(t->flags & WEFT_TRACE_ARRIVES) || t->vni != vni || bpf_ktime_get_coarse_ns() >= t->until)
		return 0;
	peer = bpf_map_lookup_elem(&peers, from);
	if (!peer || elsewhere(&t->rloc, from, peer->node))
		return 0;
	skb->mark = WEFT_TRACE | id;
	bpf_skb_load_bytes(skb, off == ETH_LEN + 20 + 8 ? ETH_LEN + 8 : ETH_LEN + 7, &ttl, 1);
	trace_tell(skb, WEFT_STEP_ARRIVED, ttl, vni, from);
	return 0;
}

#endif
