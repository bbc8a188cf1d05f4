/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Whether from_vap runs at a device: attaching it takes the kernel 8 to 24 ms, of which the program runs nearly
 * all. A frame is made to come in at the device; where it meets the program, that says so. */
#ifndef WEFT_KNOCK_H
#define WEFT_KNOCK_H

/* The mark of such a frame, as knock.rs has it; its lowest bit says which of two it is. */
#define WEFT_KNOCK 0x57460000U

/* A tenant system's frame comes from another network namespace, or from a TAP, without a mark. */
static __always_inline bool is_knock(const struct __sk_buff *skb)
{
	return (skb->mark & ~1U) == WEFT_KNOCK;
}

/* Noted in `asked`, by the device and which of the two it was. */
static __noinline int knocked(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	struct weft_vn_mac key;

	key.vni = skb->ifindex;
	*(__u32 *)key.mac = skb->mark & 1;
	*(__u16 *)(key.mac + 4) = 0;
	*(__u16 *)key.pad = 4;
	bpf_map_update_elem(&asked, &key, &now, BPF_ANY);
	return TC_ACT_SHOT;
}

#endif
