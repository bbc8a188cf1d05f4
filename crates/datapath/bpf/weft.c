// SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0
/* Weft's programs, one object. Attached to tcx ingress:
 *   from_vap       the host side of each tenant system's veth or TAP
 *   from_underlay  each device that leads to RLOCs
 *   from_overlay   the VXLAN device
 * No 16-octet constant aggregates anywhere: clang 14 loses stores next to a copy of one. The build
 * fails if one gets in. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "punt.h"
#include "trace.h"
#include "miss.h"
#include "answer.h"
#include "outer.h"
#include "meter.h"
#include "tunnel.h"
#include "conn.h"
#include "rules.h"
#include "policy.h"
#include "groups.h"
#include "members.h"
#include "flood.h"
#include "route.h"
#include "translate.h"
#include "again.h"
#include "knock.h"
#include "onward.h"
#include "away.h"
#include "source.h"
#include "resolve.h"
#include "vap.h"
#include "carry.h"
#include "fabric.h"

SEC("classifier/from_vap")
int from_vap(struct __sk_buff *skb)
{
	trace_enter(skb);
	return vap_frame(skb, false);
}

/* Not attached: test-run on frames that the agent has held. */
SEC("classifier/again")
int again(struct __sk_buff *skb)
{
	return vap_frame(skb, true);
}

/* Not attached: test-run on a frame that is to come in at its device. */
SEC("classifier/knock")
int knock(struct __sk_buff *skb)
{
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	return TC_ACT_SHOT;
}

/* Not attached: test-run on frames that the agent has held for others. */
SEC("classifier/carry_again")
int carry_again(struct __sk_buff *skb)
{
	return carry_held(skb);
}

SEC("classifier/from_underlay")
int from_underlay(struct __sk_buff *skb)
{
	trace_enter(skb);
	return underlay_frame(skb);
}

SEC("classifier/from_overlay")
int from_overlay(struct __sk_buff *skb)
{
	trace_enter(skb);
	return overlay_frame(skb);
}

char _license[] SEC("license") = "Dual MIT/GPL";
