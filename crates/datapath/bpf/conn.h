/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Connections that policies have let through: what a packet is to them, how far they are, when they have ended. */
#ifndef WEFT_CONN_H
#define WEFT_CONN_H

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
/* Up to its flags; a first fragment that ends before them hides what it is (RFC 1858). */
#define TCP_SEEN 14

#ifndef IPPROTO_DCCP
#define IPPROTO_DCCP 33
#endif
#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

/* What a packet is beside its ports. */
#define KIND_PLAIN 0
#define KIND_QUESTION 1 /* of ICMP, with an identifier */
#define KIND_ANSWER 2	/* to one */
#define KIND_ERROR 3	/* of ICMP, about another packet */
#define KIND_ALONE 4	/* of ICMP, that nothing belongs to */
#define KIND_EXEMPT 5	/* Neighbor Discovery, which has checks of its own */
#define KIND_MEMBERSHIP 6 /* IGMP, MLD and Router Solicitations, likewise if for a group, as all of it is */
#define KIND_UNREADABLE 7

/* A packet's ports, as one register: an ICMP question goes from the port of its identifier to that of its type and
 * code, its answer back, so that whoever asks has a connection. The number is what rules call it. */
#define ports_dst(p) ((__u16)(p))
#define ports_src(p) ((__u16)((p) >> 16))
#define ports_number(p) ((__u16)((p) >> 32))
#define ports_flags(p) ((__u8)((p) >> 48))
#define ports_kind(p) ((__u8)((p) >> 56))

static __always_inline __u64 as_ports(__u64 kind, __u64 flags, __u16 number, __u16 src, __u16 dst)
{
	return kind << 56 | flags << 48 | (__u64)number << 32 | (__u64)src << 16 | dst;
}

/* The type of the question that an ICMP message answers; 0: none, -1: it is a question itself. */
static __always_inline int icmp_question(__u8 type, bool v4)
{
	if (!v4)
		return type == 128 ? -1 : type == 129 ? 128 : 0;
	if (type == 8 || type == 13 || type == 15 || type == 17)
		return -1;
	return type == 0 ? 8 : type == 14 || type == 16 || type == 18 ? type - 1 : 0;
}

static __always_inline bool is_icmp_error(__u8 type, bool v4)
{
	return v4 ? type == 3 || type == 4 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* Of what is at `off`, of which there are `room` octets. Global, so that the verifier looks at it once. */
__noinline __u64 read_ports(struct __sk_buff *skb, __u32 off, __u32 proto, __u32 v4, __u32 room)
{
	int question;
	__u16 number;
	__u8 b[16];

	if (proto == IPPROTO_TCP && room >= TCP_SEEN) {
		if (bpf_skb_load_bytes(skb, off, b, TCP_SEEN))
			return as_ports(KIND_UNREADABLE, 0, 0, 0, 0);
		number = b[2] << 8 | b[3];
		return as_ports(KIND_PLAIN, b[13], number, b[0] << 8 | b[1], number);
	}
	if (proto == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		if (room < 8 || bpf_skb_load_bytes(skb, off, b, 8))
			return as_ports(KIND_UNREADABLE, 0, 0, 0, 0);
		number = b[0] << 8 | b[1];
		if (is_icmp_error(b[0], v4))
			return as_ports(KIND_ERROR, 0, number, 0, 0);
		if (!v4 && ((b[0] >= 130 && b[0] <= 133) || b[0] == 143))
			return as_ports(KIND_MEMBERSHIP, 0, number, 0, 0);
		if (!v4 && (b[0] == 135 || b[0] == 136))
			return as_ports(KIND_EXEMPT, 0, number, 0, 0);
		question = icmp_question(b[0], v4);
		if (!question)
			return as_ports(KIND_ALONE, 0, number, 0, 0);
		if (question < 0)
			return as_ports(KIND_QUESTION, 0, number, b[4] << 8 | b[5], number);
		return as_ports(KIND_ANSWER, 0, number, question << 8 | b[1], b[4] << 8 | b[5]);
	}
	if (v4 && proto == IPPROTO_IGMP)
		return as_ports(KIND_MEMBERSHIP, 0, 0, 0, 0);
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_SCTP && proto != IPPROTO_DCCP &&
	    proto != IPPROTO_UDPLITE)
		return 0;
	if (room < 4 || bpf_skb_load_bytes(skb, off, b, 4))
		return as_ports(KIND_UNREADABLE, 0, 0, 0, 0);
	number = b[2] << 8 | b[3];
	return as_ports(KIND_PLAIN, 0, number, b[0] << 8 | b[1], number);
}

static __always_inline __u32 key_sum(const struct weft_conn_key *key)
{
	const __u32 *word = (const __u32 *)key;
	__u32 sum = 0, i;

#pragma unroll
	for (i = 0; i < sizeof(*key) / 4; i++)
		sum ^= word[i] + i * 0x9e3779b1U;
	return sum;
}

/* Reads a connection. The map may give its place to another one at any moment, and writes that from the front: what it
 * is of is read last. */
static __always_inline bool read_conn(struct weft_conn *to, const struct weft_conn_key *key)
{
	volatile struct weft_conn *at = bpf_map_lookup_elem(&conns, key);

	if (!at)
		return false;
	to->pad = 0;
	to->to = at->to;
	to->state = at->state;
	to->opened = at->opened;
	to->rule = at->rule;
	to->generation = at->generation;
	to->born = at->born;
	to->seen = at->seen;
	to->policy = at->policy;
	to->of = at->of;
	return to->of == key_sum(key);
}

/* Signed: another CPU may have seen it since. */
static __always_inline bool is_alive(const struct weft_conn *conn, __u8 proto, __u64 now)
{
	__u64 kept = WEFT_OTHER_KEPT;

	if (proto == IPPROTO_TCP)
		kept = conn->state <= WEFT_CONN_ANSWERED  ? WEFT_TCP_OPENING :
		       conn->state == WEFT_CONN_CLOSING ? WEFT_TCP_CLOSING :
		       conn->state == WEFT_CONN_RESET	? WEFT_TCP_RESET :
							  WEFT_TCP_ESTABLISHED;
	else if (proto == IPPROTO_UDP)
		kept = conn->state == WEFT_CONN_OPENING ? WEFT_UDP_OPENING : WEFT_UDP_ESTABLISHED;
	else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6)
		kept = WEFT_ICMP_KEPT;
	return (__s64)(now - conn->seen) < (__s64)kept;
}

/* Whether a packet begins a connection anew where there is one: a SYN where that has been closed, or from the other
 * side; a question of the other side's. */
static __always_inline bool begins(const struct weft_conn *conn, __u64 ports, __u32 toward)
{
	bool forth = toward == conn->opened;

	if (ports_kind(ports) == KIND_QUESTION || ports_kind(ports) == KIND_ANSWER)
		return forth != (ports_kind(ports) == KIND_QUESTION);
	if ((ports_flags(ports) & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return conn->state >= WEFT_CONN_CLOSING || (!forth && conn->state != WEFT_CONN_OPENING);
}

/* What a packet makes of a connection's state. Who has only seen a SYN answered may have been answered by anybody:
 * that it is established takes one more. Nobody here knows which RST its end will take (RFC 5961): what is established
 * is given a while to go on. */
static __always_inline __u8 next_state(const struct weft_conn *conn, __u8 proto, __u8 flags, __u32 toward)
{
	__u8 state = conn->state, end = toward == WEFT_OUT ? WEFT_CONN_ENDED_HERE : WEFT_CONN_ENDED_THERE;
	bool forth = toward == conn->opened;

	if (proto != IPPROTO_TCP)
		return forth ? state : WEFT_CONN_ESTABLISHED;
	if (flags & TCP_RST)
		return state == WEFT_CONN_ESTABLISHED || state == WEFT_CONN_RESET ? WEFT_CONN_RESET : WEFT_CONN_CLOSING;
	if (state == WEFT_CONN_RESET)
		state = WEFT_CONN_ESTABLISHED;
	if (state == WEFT_CONN_OPENING && !forth)
		state = flags & TCP_SYN ? WEFT_CONN_ANSWERED : WEFT_CONN_ESTABLISHED;
	else if (state == WEFT_CONN_ANSWERED && forth && !(flags & TCP_SYN))
		state = WEFT_CONN_ESTABLISHED;
	if (flags & TCP_FIN && state >= WEFT_CONN_ESTABLISHED)
		state = state == WEFT_CONN_ESTABLISHED || state == end ? end : WEFT_CONN_CLOSING;
	return state;
}

#define CONN_INSERTED 0
#define CONN_REMOVED 1
#define CONN_UNFOLLOWED 2

static __always_inline void count_conn(__u32 what)
{
	__u32 by_programs = 0;
	struct weft_conn_counts *counts = bpf_map_lookup_elem(&conn_counts, &by_programs);

	if (!counts)
		return;
	if (what == CONN_INSERTED)
		counts->inserted++;
	else if (what == CONN_REMOVED)
		counts->removed++;
	else
		counts->unfollowed++;
}

/* Somebody has answered a connection: it does not count as one that nobody does. Of what was taken so long ago that it
 * is there again already nothing is given back. */
static __noinline int give_back(struct weft_vap *vap, __u32 opened)
{
	__u64 now = bpf_ktime_get_ns(), old, *tat;
	int i;

	if (!vap)
		return 0;
	tat = opened == WEFT_IN ? &vap->opened_tat : &vap->open_tat;
#pragma unroll
	for (i = 0; i < 4; i++) {
		old = *(volatile __u64 *)tat;
		if (old <= now || old < vap->open_interval)
			return 0;
		if (__sync_val_compare_and_swap(tat, old, old - vap->open_interval) == old)
			return 0;
	}
	return 0;
}

/* Notes a connection that a rule lets through, in the place of one of this name if there is one. Always as a whole: what
 * was found a moment ago may be the memory of another one by now, as the map gives it away at once. */
static __noinline int set_conn(const struct weft_conn_key *key, const struct weft_conn *is)
{
	if (!key || !is)
		return 0;
	if (bpf_map_update_elem(&conns, key, is, BPF_EXIST) && !bpf_map_update_elem(&conns, key, is, BPF_NOEXIST))
		count_conn(CONN_INSERTED);
	return 0;
}

/* A packet of a connection that is known already. */
static __noinline int go_on(struct weft_vap *vap, const struct weft_conn_key *key, struct weft_conn *is, __u32 state,
			    __u64 now)
{
	if (!vap || !key || !is)
		return 0;
	if (is->state < WEFT_CONN_ESTABLISHED && state >= WEFT_CONN_ESTABLISHED && state != WEFT_CONN_CLOSING)
		give_back(vap, is->opened);
	is->state = state;
	is->seen = now;
	bpf_map_update_elem(&conns, key, is, BPF_EXIST);
	return 0;
}

#endif
