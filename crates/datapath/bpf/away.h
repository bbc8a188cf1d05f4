/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Tenant systems that were here and have moved on: frames that still come for them are redirected. */
#ifndef WEFT_AWAY_H
#define WEFT_AWAY_H

static __always_inline struct weft_away *find_away(const struct weft_vn_mac *key)
{
	return bpf_map_lookup_elem(&away, key);
}

/* A stripped frame goes on to where its destination went, with the outer TTL that it came with less one: however
 * wrong the tables of several NVEs are, it goes round no longer than that allows, and never straight back. Its
 * sender is solicited to ask where the destination is. The DS field stays. */
static __noinline int redirect(struct __sk_buff *skb, struct outer *outer, const struct eth *inner)
{
	struct weft_config *cfg = get_config();
	struct weft_away *gone;
	struct weft_peer *peer;
	struct weft_vn_mac key;
	struct where w;

	if (!outer || !inner || !cfg)
		return TC_ACT_SHOT;
	w.vni = bpf_map_lookup_elem(&vns, &outer->vni) ? outer->vni : 0;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	key.vni = outer->vni;
	copy_mac(key.mac, inner->h_dest);
	*(__u16 *)key.pad = 0;
	gone = find_away(&key);
	if (!gone)
		return drop_inward(skb, w, WEFT_NO_SUCH_TS);
	outer->to = gone->rloc;
	peer = bpf_map_lookup_elem(&peers, &outer->from);
	if (outer->ttl <= 1 || !peer || !elsewhere(&outer->to, &outer->from, peer->node))
		return drop(skb, w, WEFT_REDIRECT_LOOP);
	outer->ttl--;
	outer->ds &= 0xfc;
	if (is_traced(skb)) /* its sender's agent hears by whom it is seen */
		trace_tell(skb, WEFT_STEP_LOCATION, WEFT_STEP_BY_LEARNING, 0, &outer->to);
	else
		report(skb, outer->vni, &outer->from, 0);
	if (!(cfg->families & (is_v4(&outer->to) ? WEFT_FAMILY_V4 : WEFT_FAMILY_V6)))
		return drop(skb, w, WEFT_NO_RLOC);
	if (is_traced(skb))
		return ONWARD;
	if (set_tunnel(skb, cfg, outer->vni, &outer->to, outer->ttl, outer->ds))
		return drop(skb, w, WEFT_KERNEL);
	count(skb, w.vni, WEFT_REDIRECTED, w.path, w.direction);
	return say(skb, WEFT_DID_DEVICE, WEFT_REDIRECTED, cfg->vxlan_ifindex, bpf_redirect(cfg->vxlan_ifindex, 0));
}

#endif
