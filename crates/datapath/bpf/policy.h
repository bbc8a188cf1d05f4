/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Access policy: what a VAP with one may send and receive. Rules allow, and what none allows is refused; a connection
 * that was let through is, in both directions, until it has ended or the policy is another. Both ends' policies decide
 * of what goes from one VAP here to another. */
#ifndef WEFT_POLICY_H
#define WEFT_POLICY_H

#define READ_REFUSED 0
#define READ_IP 1
#define READ_EXEMPT 2

/* A frame without a tunnel header: its addresses seen from the VAP, and what is behind its IP header. */
__noinline int read_packet(struct __sk_buff *skb, struct weft_conn_key *key, struct l4 *l4, __u32 toward)
{
	/* What is shorter is no whole ARP or IP packet. */
	struct eth *eth = head(skb, ETH_LEN + sizeof(struct iphdr));
	struct ipv6hdr *six;
	struct iphdr *ip;

	if (!eth || !key || !l4)
		return READ_REFUSED;
	key->local_port = 0;
	key->remote_port = 0;
	key->pad[0] = 0;
	key->pad[1] = 0;
	key->pad[2] = 0;
	if (eth->h_proto == bpf_htons(ETH_P_ARP))
		return READ_EXEMPT;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		ip = (void *)(eth + 1);
		if (ip->version != 4 || ip->ihl < 5)
			return READ_REFUSED;
		ip_from_v4(&key->local, toward == WEFT_OUT ? ip->saddr : ip->daddr);
		ip_from_v4(&key->remote, toward == WEFT_OUT ? ip->daddr : ip->saddr);
		l4->v4 = 1;
		l4->off = ETH_LEN + ip->ihl * 4;
		l4->proto = ip->protocol;
		l4->later = (ip->frag_off & bpf_htons(0x1fff)) != 0;
		l4->first = (ip->frag_off & bpf_htons(0x3fff)) == bpf_htons(0x2000);
		l4->id = ip->id;
		l4->end = packet_end(skb, bpf_ntohs(ip->tot_len), 0);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		/* Or clang takes what it read for the first look, and as a number. */
		asm volatile("" ::: "memory");
		eth = head(skb, ETH_LEN + sizeof(*six));
		if (!eth)
			return READ_REFUSED;
		six = (void *)(eth + 1);
		if (six->version != 6)
			return READ_REFUSED;
		ip_from_v6(&key->local, toward == WEFT_OUT ? &six->saddr : &six->daddr);
		ip_from_v6(&key->remote, toward == WEFT_OUT ? &six->daddr : &six->saddr);
		l4->v4 = 0;
		l4->end = packet_end(skb, bpf_ntohs(six->payload_len), sizeof(*six));
		if (!skip_extensions(skb, six->nexthdr, l4->end, l4))
			return READ_REFUSED;
	} else {
		return READ_REFUSED;
	}
	key->protocol = l4->proto;
	/* Nobody talks to himself by way of an NVE, and both ends of that would be one connection. */
	if (same_ip(&key->local, &key->remote))
		return READ_REFUSED;
	return l4->off <= l4->end && l4->end <= skb->len ? READ_IP : READ_REFUSED;
}

static __always_inline void set_ports(struct weft_conn_key *key, __u64 ports, bool out)
{
	key->local_port = bpf_htons(out ? ports_src(ports) : ports_dst(ports));
	key->remote_port = bpf_htons(out ? ports_dst(ports) : ports_src(ports));
}

/* The number by which rules know the first packet of a connection. */
static __always_inline __u32 opened_to(const struct weft_conn_key *key, const struct weft_conn *conn)
{
	return bpf_ntohs(conn->opened == WEFT_OUT ? key->remote_port : key->local_port);
}

/* Whether it is of the tenant system that is at the VAP now, and not of one that had its address before. */
static __always_inline bool is_own(const struct weft_conn *conn, const struct weft_vap *vap)
{
	return (__s64)(conn->born - vap->since) > 0;
}

static __always_inline bool is_current(const struct weft_conn *conn, const struct weft_vap *vap)
{
	return conn->policy == vap->policy && conn->generation == vap->generation;
}

/* What a packet turns out to be, and the one that an ICMP error quotes. Not on the stack, which is not deep. No other packet
 * is decided on a CPU meanwhile, but by the agent's test runs, which a received packet may interrupt on older kernels: those
 * have one of their own. */
struct look {
	struct weft_conn_key key;
	struct weft_conn_key quoted;
	struct weft_conn conn;
	struct l4 l4;
	struct l4 behind; /* what is quoted */
	struct weft_fragment_key part;
	union {		  /* and its header */
		struct iphdr ip;
		__u8 begin[8];
	} header;
	__u32 again;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct look);
	__uint(max_entries, 2);
} looks SEC(".maps");

/* The rule of the connection that an ICMP error is about, as find_rule; 0: of none that
 * the VAP's policy lets through. */
static __noinline __u32 find_related(struct __sk_buff *skb, const struct weft_vap *vap, struct look *at, __u32 toward)
{
	bool v4, out = toward == WEFT_IN; /* what is quoted went the other way */
	struct weft_conn_key *key;
	struct iphdr *ip;
	__u32 proto, class, off;
	__u64 ports;

	if (!vap || !at)
		return 0;
	key = &at->quoted;
	ip = &at->header.ip;
	off = at->l4.off + 8;
	v4 = at->l4.v4;
	key->vni = at->key.vni;
	if (v4) {
		if (bpf_skb_load_bytes(skb, off, ip, sizeof(*ip)) || ip->version != 4 || ip->ihl < 5 ||
		    ip->frag_off & bpf_htons(0x1fff))
			return 0;
		ip_from_v4(&key->local, out ? ip->saddr : ip->daddr);
		ip_from_v4(&key->remote, out ? ip->daddr : ip->saddr);
		proto = ip->protocol;
		off += ip->ihl * 4;
	} else {
		if (bpf_skb_load_bytes(skb, off, at->header.begin, 8) || at->header.begin[0] >> 4 != 6 ||
		    bpf_skb_load_bytes(skb, off + (out ? 8 : 24), &key->local, 16) ||
		    bpf_skb_load_bytes(skb, off + (out ? 24 : 8), &key->remote, 16))
			return 0;
		if (!skip_from(skb, off + sizeof(struct ipv6hdr), at->header.begin[6], skb->len, &at->behind) || at->behind.later)
			return 0;
		proto = at->behind.proto;
		off = at->behind.off;
	}
	if (!same_ip(&key->local, &at->key.local))
		return 0;
	/* What a tenant system sends goes to the other end of that connection; to it any router may send. */
	if (!out && !same_ip(&key->remote, &at->key.remote))
		return 0;
	/* Of TCP its ports alone. */
	ports = read_ports(skb, off, proto, v4, 8);
	if (ports_kind(ports) > KIND_ANSWER)
		return 0;
	set_ports(key, ports, out);
	key->protocol = proto;
	key->pad[0] = 0;
	key->pad[1] = 0;
	key->pad[2] = 0;
	if (!read_conn(&at->conn, key) || !is_own(&at->conn, vap) ||
	    !is_alive(&at->conn, proto, bpf_ktime_get_coarse_ns()))
		return 0;
	if (is_current(&at->conn, vap))
		return at->conn.rule + 1;
	class = find_class(key->vni, &key->remote);
	return find_rule(vap->policy, class, at->conn.opened, proto, opened_to(key, &at->conn)) & RULE_NUMBER;
}

/* In `toward`: of a copy. Others get one, too, and each policy says something else of it. */
#define PART_COPY 0x200

static __always_inline void fragment_key(struct look *at, const struct weft_vap *vap, __u32 toward)
{
	struct weft_fragment_key *part = &at->part;
	bool out = !(toward & WEFT_IN);

	part->vni = at->key.vni;
	part->src = out ? at->key.local : at->key.remote;
	part->dst = out ? at->key.remote : at->key.local;
	part->id = at->l4.id;
	part->policy = toward & PART_COPY ? vap->policy : 0;
	part->protocol = at->l4.v4 ? at->l4.proto : 0;
	part->toward = toward & WEFT_IN;
	part->pad[0] = 0;
	part->pad[1] = 0;
}

/* Lets the other fragments of a packet through, as `found` does its first one; or does not, whatever was let through
 * before under its identification. */
static __noinline int let_fragments(const struct weft_vap *vap, struct look *at, __u32 toward, __u32 found)
{
	struct weft_fragment is;

	if (!vap || !at)
		return 0;
	fragment_key(at, vap, toward);
	if (!found)
		return bpf_map_delete_elem(&fragments, &at->part);
	is.seen = bpf_ktime_get_ns();
	is.rule = (found & RULE_NUMBER) - 1;
	is.pad = 0;
	bpf_map_update_elem(&fragments, &at->part, &is, BPF_ANY);
	return 0;
}

/* The rule by which the first fragment of a packet was let through, as find_rule. A packet that is under way when the
 * policy changes is let through whole: whoever has its first fragment has what rules look at. */
static __noinline __u32 find_fragment(const struct weft_vap *vap, struct look *at, __u32 toward)
{
	struct weft_fragment *found;

	if (!vap || !at)
		return 0;
	fragment_key(at, vap, toward);
	found = bpf_map_lookup_elem(&fragments, &at->part);
	if (!found || (__s64)(bpf_ktime_get_coarse_ns() - found->seen) >= (__s64)WEFT_FRAGMENT_KEPT ||
	    (__s64)(found->seen - vap->since) < 0)
		return 0;
	return found->rule + 1;
}

/* TenantIp: what is for any other address can belong to no tenant system's connection. */
static __always_inline bool is_tenants(const struct weft_ip *ip)
{
	__u32 first = bpf_ntohl(ip->w[3]) >> 24;

	if (is_v4(ip))
		return first && first != 127 && first < 224;
	return (ip->w[0] | ip->w[1] | ip->w[2] | (ip->w[3] & ~bpf_htonl(1))) &&
	       (ip->w[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000);
}

/* Whether a packet has checks of its own. Of DHCP what a client says and is told (RFC 2131, RFC 8415). */
static __always_inline bool is_exempt(struct __sk_buff *skb, const struct weft_conn_key *key, const struct l4 *l4,
				      __u64 ports, bool out)
{
	__u16 client = l4->v4 ? 68 : 546, server = l4->v4 ? 67 : 547;
	const struct weft_ip *dst = out ? &key->remote : &key->local;
	__u8 to = 0;

	if (ports_kind(ports) == KIND_EXEMPT)
		return true;
	if (ports_kind(ports) == KIND_MEMBERSHIP) {
		/* To all that listen, and not to one of them in that dress. */
		if (bpf_skb_load_bytes(skb, 0, &to, 1) || !(to & 1))
			return false;
		return l4->v4 ? (dst->w[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) :
				(dst->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	}
	return l4->proto == IPPROTO_UDP && ports_src(ports) == (out ? client : server) &&
	       ports_dst(ports) == (out ? server : client);
}

/* Notes a connection that `found` lets through. */
static __always_inline void let(const struct weft_vap *vap, const struct weft_conn_key *key, struct weft_conn *is,
				__u32 found)
{
	is->of = key_sum(key);
	is->seen = bpf_ktime_get_coarse_ns();
	is->policy = vap->policy;
	is->generation = vap->generation;
	is->rule = (found & RULE_NUMBER) - 1;
	set_conn(key, is);
}

/* The rule that lets a packet through of which no connection is known, as find_rule. */
static __noinline __u32 let_first(struct weft_vap *vap, const struct weft_conn_key *key, struct weft_conn *is,
				  __u64 ports, __u32 toward)
{
	__u64 now, *tat;
	__u32 found;

	if (!vap || !key || !is)
		return 0;
	found = find_rule(vap->policy, find_class(key->vni, &key->remote), toward, key->protocol,
			  ports_number(ports));
	/* An answer to nothing, and what nothing can answer, begins nothing. */
	if (!found || ports_kind(ports) > KIND_QUESTION)
		return found;
	/* What others open takes nothing of what it may open itself. */
	tat = toward == WEFT_IN ? &vap->opened_tat : &vap->open_tat;
	if (!take_token(tat, vap->open_interval, WEFT_OPEN_WINDOW)) {
		count_conn(CONN_UNFOLLOWED);
		return found;
	}
	now = bpf_ktime_get_ns(); /* another may have had the address until a moment ago */
	is->born = now > vap->since ? now : vap->since + 1;
	is->state = ports_flags(ports) & (TCP_FIN | TCP_RST) ? WEFT_CONN_CLOSING : WEFT_CONN_OPENING;
	is->opened = toward;
	let(vap, key, is, found);
	return found;
}

/* A connection that was let through under another policy or generation: it goes on if its first packet would be let
 * through now, and is no more if not. As find_rule. */
static __noinline __u32 let_again(const struct weft_vap *vap, const struct weft_conn_key *key,
				  struct weft_conn *conn, __u64 ports, __u32 toward)
{
	__u32 found;

	if (!vap || !key || !conn)
		return 0;
	found = find_rule(vap->policy, find_class(key->vni, &key->remote), conn->opened, key->protocol,
			  opened_to(key, conn));
	conn->state = next_state(conn, key->protocol, ports_flags(ports), toward);
	if (found)
		let(vap, key, conn, found);
	else if (!bpf_map_delete_elem(&conns, key))
		count_conn(CONN_REMOVED);
	return found & RULE_NUMBER;
}

/* Whether a packet from a VAP is for the address of one tenant system and goes to the MAC address of another: rules look
 * at the one, its way is the other's. Only where it is known whose the address is. */
static __noinline bool goes_astray(struct __sk_buff *skb, const struct weft_vap *vap, struct look *at)
{
	struct weft_neighbour *n;
	struct weft_scoped_ip key;
	__u8 mac[8];
	__u32 to;

	if (!vap || !at || (vap->mode & WEFT_LEARNS) == WEFT_LEARNS_TRANSLATE || bpf_skb_load_bytes(skb, 0, mac, 6))
		return false;
	if (mac[0] & 1 || (distributes(vap->mode) && is_anycast(mac, vap->vni)))
		return false;
	to = mac[2] << 24 | mac[3] << 16 | mac[4] << 8 | mac[5];
	if (to && at->conn.to == to)
		return false;
	key.scope = vap->vni;
	key.ip = at->key.remote;
	n = bpf_map_lookup_elem(&neighbours, &key);
	at->conn.to = 0;
	if (!n || !n->known)
		return false;
	if (!same_mac(n->mac, mac))
		return true;
	at->conn.to = to;
	return false;
}

/* In `toward`: what decided before that this frame has to wait has counted it. */
#define POLICY_AGAIN 0x100

/* Why the policy of a VAP refuses a frame without a tunnel header, going `toward` it or from it; 0: it does not. */
__noinline int refuses(struct __sk_buff *skb, struct weft_vap *vap, __u32 ifindex, __u32 toward)
{
	bool out = !(toward & WEFT_IN), known = false, checked = false;
	__u32 found = !!(toward & POLICY_AGAIN), reason = WEFT_DENIED;
	struct look *at;
	__u64 ports, now;
	__u32 was = 0;
	__u8 state;
	int read;

	at = bpf_map_lookup_elem(&looks, &found);
	if (!vap || !at)
		return reason;
	at->again = found;
	found = 0;
	toward &= WEFT_IN;
	at->key.vni = vap->vni;
	at->conn.to = 0;
	at->conn.pad = 0;
	read = read_packet(skb, &at->key, &at->l4, toward);
	if (read == READ_EXEMPT)
		return 0;
	if (read != READ_IP)
		goto out;
	if (at->l4.later) {
		if (out && goes_astray(skb, vap, at))
			goto astray;
		checked = true;
		found = find_fragment(vap, at, toward);
		goto out;
	}
	ports = read_ports(skb, at->l4.off, at->l4.proto, at->l4.v4, at->l4.end - at->l4.off);
	if (is_exempt(skb, &at->key, &at->l4, ports, out))
		return 0;
	if (ports_kind(ports) == KIND_UNREADABLE ||
	    (at->l4.proto == IPPROTO_TCP && at->l4.end - at->l4.off < TCP_SEEN))
		goto out;
	if (ports_kind(ports) == KIND_ERROR)
		found = find_related(skb, vap, at, toward);
	if (found)
		goto out;
	if (ports_kind(ports) <= KIND_ANSWER && !is_tenants(&at->key.local))
		ports = as_ports(KIND_ALONE, 0, ports_number(ports), 0, 0);
	if (ports_kind(ports) <= KIND_ANSWER) {
		set_ports(&at->key, ports, out);
		now = bpf_ktime_get_coarse_ns();
		known = read_conn(&at->conn, &at->key) && is_own(&at->conn, vap) &&
			is_alive(&at->conn, at->key.protocol, now) && !begins(&at->conn, ports, toward);
		if (known)
			was = at->conn.to;
		/* Whose the address is is asked again from time to time, and when policy has changed. */
		if (!known || !is_current(&at->conn, vap) || (__s64)(now - at->conn.seen) >= (__s64)SECOND)
			at->conn.to = 0;
		if (out && goes_astray(skb, vap, at))
			goto astray;
		checked = true;
		if (known) {
			if (is_traced(skb))
				trace_tell(skb, WEFT_STEP_KNOWN, ifindex | (out ? 0 : WEFT_STEP_IN), at->conn.state, 0);
			if (!is_current(&at->conn, vap)) {
				found = let_again(vap, &at->key, &at->conn, ports, toward);
				goto known;
			}
			found = at->conn.rule + 1;
			state = next_state(&at->conn, at->key.protocol, ports_flags(ports), toward);
			if (state != at->conn.state || was != at->conn.to ||
			    (__s64)(now - at->conn.seen) >= (__s64)SECOND)
				go_on(vap, &at->key, &at->conn, state, now);
			goto known;
		}
	}
	if (!checked) {
		at->conn.to = 0;
		if (out && goes_astray(skb, vap, at))
			goto astray;
		checked = true;
	}
	found = let_first(vap, &at->key, &at->conn, ports, toward);
	if (found & RULE_LOGGED)
		log_policy(skb, at->key.vni, ifindex, found, toward);
known:
	if (at->l4.first)
		let_fragments(vap, at, toward, found);
out:
	if (found && out && !checked) {
		at->conn.to = 0; /* what is quoted went another way */
		if (goes_astray(skb, vap, at))
			goto astray;
	}
	if (is_traced(skb))
		trace_tell(skb, WEFT_STEP_POLICY, ifindex | (out ? 0 : WEFT_STEP_IN), found & RULE_NUMBER, 0);
	if (found) {
		if (!at->again)
			hit(skb, (found & RULE_NUMBER) - 1);
		return 0;
	}
	goto refused;
astray:
	reason = WEFT_WRONG_MAC;
refused:
	if (vap->flags & WEFT_VAP_LOG_REFUSED)
		log_policy(skb, vap->vni, ifindex, 0, toward);
	return reason;
}

/* Whether a VAP is still this device's: the memory of one that was written anew may be another one's at once. Asked after
 * everything else was read of it. */
static __always_inline bool is_vap_of(const struct weft_vap *vap, __u32 ifindex)
{
	return *(volatile const __u32 *)&vap->ifindex == ifindex;
}

/* As `refuses`, where there may be no policy. */
static __always_inline int is_refused(struct __sk_buff *skb, struct weft_vap *vap, __u32 ifindex, __u32 toward)
{
	int reason = vap->policy ? refuses(skb, vap, ifindex, toward) : 0;

	return reason || is_vap_of(vap, ifindex) ? reason : WEFT_DENIED;
}

/* Of a frame of which many get a copy, what the policies of those who do look at: read once. `again`: which look. */
#define COPY_READ 1
#define COPY_EXEMPT 2
#define COPY_REFUSED 4
#define COPY_FIRST 8  /* a fragment: its key is in the look, where no copy leaves meanwhile */
#define COPY_LATER 16 /* likewise, another one */
#define copy_class(c) ((__u32)(c))
#define copy_number(c) ((__u16)((c) >> 32))
#define copy_proto(c) ((__u8)((c) >> 48))
#define copy_is(c) ((__u8)((c) >> 56))

__noinline __u64 read_copy(struct __sk_buff *skb, __u32 vni, __u32 again)
{
	__u64 exempt = (__u64)(COPY_READ | COPY_EXEMPT) << 56, refused = (__u64)(COPY_READ | COPY_REFUSED) << 56;
	struct look *at = bpf_map_lookup_elem(&looks, &again);
	struct l4 *l4;
	__u64 ports;
	int read;

	if (!at)
		return refused;
	l4 = &at->l4;
	at->key.vni = vni;
	read = read_packet(skb, &at->key, l4, WEFT_IN);
	if (read == READ_EXEMPT)
		return exempt;
	if (read != READ_IP)
		return refused;
	if (l4->later)
		return (__u64)(COPY_READ | COPY_LATER) << 56;
	ports = read_ports(skb, l4->off, l4->proto, l4->v4, l4->end - l4->off);
	if (is_exempt(skb, &at->key, l4, ports, false))
		return exempt;
	if (ports_kind(ports) == KIND_UNREADABLE ||
	    (l4->proto == IPPROTO_TCP && l4->end - l4->off < TCP_SEEN))
		return refused;
	return (__u64)(l4->first ? COPY_READ | COPY_FIRST : COPY_READ) << 56 | (__u64)l4->proto << 48 | (__u64)ports_number(ports) << 32 |
	       find_class(vni, &at->key.remote);
}

/* Whether the policy of a VAP refuses its copy. By its rules alone: no connection is remembered of each. */
__noinline int refuses_copy(struct __sk_buff *skb, struct weft_vap *vap, __u32 ifindex, __u64 copy, __u32 again)
{
	struct look *at = 0;
	__u32 found = 0;

	if (!vap)
		return 1;
	if (copy_is(copy) & COPY_EXEMPT)
		return 0;
	if (copy_is(copy) & (COPY_FIRST | COPY_LATER))
		at = bpf_map_lookup_elem(&looks, &again);
	if (copy_is(copy) & COPY_LATER)
		found = find_fragment(vap, at, WEFT_IN | PART_COPY);
	else if (!(copy_is(copy) & COPY_REFUSED))
		found = find_rule(vap->policy, copy_class(copy), WEFT_IN, copy_proto(copy), copy_number(copy));
	if (copy_is(copy) & COPY_FIRST)
		let_fragments(vap, at, WEFT_IN | PART_COPY, found);
	if (found) {
		hit(skb, (found & RULE_NUMBER) - 1);
		return 0;
	}
	if (vap->flags & WEFT_VAP_LOG_REFUSED)
		log_policy(skb, vap->vni, ifindex, 0, WEFT_IN);
	return 1;
}

#endif
