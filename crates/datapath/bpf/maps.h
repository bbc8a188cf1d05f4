/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* The maps, and the way out of every program: count it, tell a test run, return. */
#ifndef WEFT_MAPS_H
#define WEFT_MAPS_H

/* Sizes are defaults: the loader overrides them. */
#define PINNED_MAP(name, map_type, key_type, value_type, entries, map_fl)                          \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, map_fl);                                                         \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} name SEC(".maps")

PINNED_MAP(config, BPF_MAP_TYPE_ARRAY, __u32, struct weft_config, 1, 0);
PINNED_MAP(vaps, BPF_MAP_TYPE_HASH, __u32, struct weft_vap, 4096, 0);
PINNED_MAP(vap_ips, BPF_MAP_TYPE_HASH, struct weft_scoped_ip, __u32, 32768, BPF_F_NO_PREALLOC);
PINNED_MAP(vns, BPF_MAP_TYPE_HASH, __u32, struct weft_vn, 4096, 0);
PINNED_MAP(settings, BPF_MAP_TYPE_HASH, __u32, struct weft_settings, 4096, 0);
PINNED_MAP(members, BPF_MAP_TYPE_HASH, struct weft_indexed, struct weft_ip, 65536, BPF_F_NO_PREALLOC);
PINNED_MAP(groups, BPF_MAP_TYPE_HASH, struct weft_scoped_ip, struct weft_group, 8192, BPF_F_NO_PREALLOC);
PINNED_MAP(vn_vaps, BPF_MAP_TYPE_HASH, struct weft_indexed, __u32, 4096, 0);
PINNED_MAP(hot, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct weft_hot, 4096, 0);
PINNED_MAP(fdb, BPF_MAP_TYPE_HASH, struct weft_vn_mac, struct weft_location, 262144, BPF_F_NO_PREALLOC);
PINNED_MAP(away, BPF_MAP_TYPE_HASH, struct weft_vn_mac, struct weft_away, 16384, BPF_F_NO_PREALLOC);
PINNED_MAP(neighbours, BPF_MAP_TYPE_HASH, struct weft_scoped_ip, struct weft_neighbour, 262144,
	   BPF_F_NO_PREALLOC);
PINNED_MAP(peers, BPF_MAP_TYPE_HASH, struct weft_ip, struct weft_peer, 65536, BPF_F_NO_PREALLOC);
PINNED_MAP(learned, BPF_MAP_TYPE_LRU_HASH, struct weft_vn_mac, struct weft_learned, 65536, 0);
PINNED_MAP(heard, BPF_MAP_TYPE_LRU_HASH, struct weft_scoped_ip, struct weft_heard, 65536, 0);
PINNED_MAP(asked, BPF_MAP_TYPE_LRU_HASH, struct weft_vn_mac, __u64, 8192, 0);
PINNED_MAP(counters, BPF_MAP_TYPE_PERCPU_HASH, struct weft_count_key, struct weft_count, 16384, 0);
PINNED_MAP(rules, BPF_MAP_TYPE_LPM_TRIE, struct weft_rule_key, struct weft_rule, 262144, BPF_F_NO_PREALLOC);
PINNED_MAP(classes, BPF_MAP_TYPE_LPM_TRIE, struct weft_class_key, __u32, 262144, BPF_F_NO_PREALLOC);
PINNED_MAP(conns, BPF_MAP_TYPE_LRU_HASH, struct weft_conn_key, struct weft_conn, 131072, 0);
PINNED_MAP(conn_counts, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct weft_conn_counts, 2, 0);
PINNED_MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct weft_fragment_key, struct weft_fragment, 8192, 0);
PINNED_MAP(rule_hits, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct weft_count, WEFT_RULE_COUNTERS, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} punts SEC(".maps");

PINNED_MAP(traces, BPF_MAP_TYPE_HASH, __u32, struct weft_trace, 64, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 14);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} steps SEC(".maps");

static __always_inline struct weft_config *get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

/* What there is to count, of a frame that has `outer` octets of tunnel headers in front of the tenant's
 * own. A GSO frame is as many packets as it will become. Who made it may not have said how many: then
 * TCP headers without options are taken for granted and 40 octets of a last packet for options. */
static __always_inline struct weft_count amount_of(struct __sk_buff *skb, __u32 outer)
{
	struct weft_count amount;
	__u32 gso = skb->gso_size, segments = skb->gso_segs, payload;

	amount.packets = 1;
	amount.bytes = skb->len - outer;
	if (!gso)
		return amount;
	if (!segments && amount.bytes > 54) {
		payload = amount.bytes - 54;
		segments = payload / gso;
		if (payload - segments * gso > 40)
			segments++;
	}
	if (segments)
		amount.packets = segments;
	return amount;
}

/* Counts the frame as it is now. Before a frame is grown or shrunk, so that bytes are the tenant's. */
__noinline int count(struct __sk_buff *skb, __u32 vni, __u32 reason, __u32 path, __u32 direction)
{
	struct weft_count_key key;
	struct weft_count *c, amount;

	key.vni = vni;
	key.reason = reason;
	key.path = path;
	key.direction = direction;
	c = bpf_map_lookup_elem(&counters, &key);
	if (!c) {
		struct weft_count zero;

		zero.packets = 0;
		zero.bytes = 0;
		bpf_map_update_elem(&counters, &key, &zero, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&counters, &key);
		if (!c)
			return 0;
	}
	amount = amount_of(skb, 0);
	c->packets += amount.packets;
	c->bytes += amount.bytes;
	return 0;
}

/* The same for what `hot` counts; an array's slot is found without hashing or a call. What was there
 * is told apart from its being counted: that comes after everything that can fail. */
static __always_inline void count_hot(struct weft_count amount, __u32 slot, __u32 which)
{
	struct weft_hot *at = bpf_map_lookup_elem(&hot, &slot);

	if (!at || which >= 6)
		return;
	at->of[which].packets += amount.packets;
	at->of[which].bytes += amount.bytes;
}

static __always_inline bool is_traced(const struct __sk_buff *skb)
{
	return skb->mark >> 24 == WEFT_TRACE >> 24;
}

__noinline int trace_end(struct __sk_buff *skb, __u32 did, __u32 reason, __u32 target); /* trace.h */

static __always_inline int say(struct __sk_buff *skb, __u32 did, __u32 reason, __u32 target, int ret)
{
	skb->cb[0] = did;
	skb->cb[1] = reason;
	skb->cb[2] = target;
	if (is_traced(skb))
		trace_end(skb, did, reason, target);
	return ret;
}

/* Where a frame is counted, carried along as one register. */
struct where {
	__u32 vni;
	__u32 slot;
	__u32 path;
	__u32 direction;
	/* and what it is to look like outside */
	__u8 ttl;
	__u8 ds;
	__be16 sport;
};

/* Verdict of a look at one protocol: go on. Other values are what the program returns. */
#define GO_ON TC_ACT_OK
/* Likewise: look at it as Neighbor Discovery. Called from above, for the sake of the stack's depth. */
#define IS_ND 100
/* Likewise: DHCP or RS, which go to others only where the VN floods. */
#define CONFINED 101
/* Likewise: a question for the members. */
#define ASK 102
/* Likewise: to the VN's gateway, whatever the tables say. */
#define CARRY 103
/* Likewise: to a VAP here; this and what follows is done further up, too. */
#define HERE 104
/* Likewise: it is answered. */
#define ANSWER 105
/* Likewise: the agent is told of a link-local address, and the frame goes on. */
#define TELL 106
/* Likewise: it is traced, and goes on to another NVE. */
#define ONWARD 107
/* Likewise: what a tenant system says of its own address, in a VN that translates, for all there. */
#define ANNOUNCE 108
/* Likewise: the agent gets the frame instead, for the WEFT_PUNT_* that is added. */
#define PUNTS 128

static __always_inline int drop(struct __sk_buff *skb, struct where w, __u32 reason)
{
	count(skb, w.vni, reason, w.path, w.direction);
	return say(skb, WEFT_DID_DROP, reason, 0, TC_ACT_SHOT);
}

/* A drop of a frame for a VN that may not be here: strangers must not fill the counters' keys. */
static __always_inline int drop_inward(struct __sk_buff *skb, struct where w, __u32 reason)
{
	if (!bpf_map_lookup_elem(&vns, &w.vni)) {
		w.vni = 0;
		reason = WEFT_UNKNOWN_VNI;
	}
	return drop(skb, w, reason);
}

#endif
