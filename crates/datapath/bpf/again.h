/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* A frame that the agent has held, sent on. The program runs as a test run on it: nothing that such a
 * program returns is carried out, so it sends a clone. */
#ifndef WEFT_AGAIN_H
#define WEFT_AGAIN_H

/* To `rloc` or, without one, to the VAP `ifindex`. */
static __noinline int send_again(struct __sk_buff *skb, const struct where *at, const struct weft_ip *rloc,
				 __u32 ifindex)
{
	struct weft_count amount = amount_of(skb, 0);
	struct weft_config *cfg = get_config();
	struct where w;

	if (!at || !cfg)
		return TC_ACT_SHOT;
	w = *at;
	w.path = WEFT_PATH_DEVICE;
	if (rloc) {
		ifindex = cfg->vxlan_ifindex;
		if (set_tunnel(skb, cfg, w.vni, rloc, w.ttl, w.ds))
			return drop(skb, w, WEFT_KERNEL);
	}
	if (bpf_clone_redirect(skb, ifindex, 0))
		return drop(skb, w, WEFT_KERNEL);
	count_hot(amount, w.slot, (rloc ? WEFT_HOT_ENCAPSULATED : WEFT_HOT_LOCAL) + WEFT_PATH_DEVICE);
	if (rloc)
		return say(skb, WEFT_DID_DEVICE, WEFT_ENCAPSULATED, ifindex, TC_ACT_SHOT);
	return say(skb, WEFT_DID_DELIVER, WEFT_LOCAL, ifindex, TC_ACT_SHOT);
}

#endif
