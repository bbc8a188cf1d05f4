/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* The rules of policies: which one lets a packet through, how many it has, and telling the agent of it. */
#ifndef WEFT_RULES_H
#define WEFT_RULES_H

#define RULE_LOGGED 0x80000000U
#define RULE_NUMBER 0x7fffffffU /* and 1 */

static __always_inline __u32 match_rule(struct weft_rule_key *key)
{
	struct weft_rule *found = bpf_map_lookup_elem(&rules, key);

	if (!found)
		return 0;
	return (found->rule + 1) | (found->log ? RULE_LOGGED : 0);
}

/* The rule that lets the first packet of a connection through: RULE_NUMBER of it, 0 if none. */
__noinline __u32 find_rule(__u32 policy, __u32 class, __u32 toward, __u32 proto, __u32 number)
{
	struct weft_rule_key key;
	__u32 found;

	key.prefix = WEFT_RULE_PREFIX + 16;
	key.match.policy = policy;
	key.match.toward = toward;
	key.match.number = bpf_htons(number);
	key.match.pad = 0;
	if (class) {
		key.match.class = class;
		key.match.protocol = proto;
		found = match_rule(&key);
		if (found)
			return found;
		key.match.protocol = WEFT_ANY_PROTOCOL;
		found = match_rule(&key);
		if (found)
			return found;
	}
	key.match.class = 0;
	key.match.protocol = proto;
	found = match_rule(&key);
	if (found)
		return found;
	key.match.protocol = WEFT_ANY_PROTOCOL;
	return match_rule(&key);
}

static __noinline __u32 find_class(__u32 vni, const struct weft_ip *ip)
{
	struct weft_class_key key;
	__u32 *class;

	if (!ip)
		return 0;
	key.prefix = WEFT_CLASS_PREFIX + 128;
	key.of.vni = vni;
	key.of.family = is_v4(ip) ? 4 : 6;
	key.of.ip = *ip;
	class = bpf_map_lookup_elem(&classes, &key);
	return class ? *class : 0;
}

static __always_inline void hit(struct __sk_buff *skb, __u32 rule)
{
	struct weft_count *at = bpf_map_lookup_elem(&rule_hits, &rule), amount;

	if (!at)
		return;
	amount = amount_of(skb, 0);
	at->packets += amount.packets;
	at->bytes += amount.bytes;
}

/* Frames a second that the agent is told of because of a policy: of one VN and of all. */
#define LOGGED_A_SECOND 100
#define LOGGED_OF_ALL 1000

/* Tells the agent of what was let through by the rule `found`, or of what was refused: 0. */
__noinline int log_policy(struct __sk_buff *skb, __u32 vni, __u32 ifindex, __u32 found, __u32 toward)
{
	struct weft_punt *p;

	if (!may_report(vni, BUCKET_LOGGED, LOGGED_A_SECOND) || !may_report(0, BUCKET_LOGGED, LOGGED_OF_ALL))
		return 0;
	p = bpf_ringbuf_reserve(&punts, sizeof(*p), 0);
	if (!p)
		return 0;
	p->ifindex = ifindex;
	p->vni = vni;
	p->reason = found ? WEFT_PUNT_ALLOWED : WEFT_PUNT_REFUSED;
	p->len = copy_frame(skb, 0, p->frame, WEFT_PUNT_BYTES);
	copy_mac(p->dst, p->frame);
	p->toward = toward;
	p->pad = 0;
	from_nobody(&p->from);
	p->rule = found ? (found & RULE_NUMBER) - 1 : 0;
	bpf_ringbuf_submit(p, 0);
	return 0;
}

#endif
