/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* VNs that translate (RFC 7586): to other NVEs a tenant system's MAC address is its NVE's. Out of here the
 * sender becomes this NVE, in the Ethernet header, in ARP and in the options of Neighbor Discovery; what
 * comes for this NVE is given its owner's MAC address by the IP address it is for. So an NVE's table of MAC
 * addresses holds its own tenant systems and other NVEs only. */
#ifndef WEFT_TRANSLATE_H
#define WEFT_TRANSLATE_H

/* How long an IP address is believed to be behind the NVE that was heard to say so: no longer than what is
 * learned from frames. A tenant system that has moved is found again after that. */
#define HEARD_KEPT (60 * SECOND)

static __always_inline struct weft_heard *find_heard(__u32 vni, const struct weft_ip *ip)
{
	struct weft_config *cfg = get_config();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct weft_scoped_ip key;
	struct weft_heard *at;
	__s64 age;

	key.scope = vni;
	key.ip = *ip;
	at = bpf_map_lookup_elem(&heard, &key);
	if (!at || !cfg)
		return 0;
	age = now - at->seen;
	return age < (__s64)HEARD_KEPT && age < (__s64)cfg->ageing ? at : 0;
}

/* That an IP address is behind the NVE with this MAC address. */
static __noinline int hear(__u32 vni, const struct weft_ip *ip, const struct eth *eth)
{
	struct weft_scoped_ip key;
	struct weft_heard is;

	if (!ip || !eth || !is_node(eth->h_source) || is_unspecified(ip) || (is_v4(ip) && !ip->w[3]) ||
	    (ip->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
		return 0;
	key.scope = vni;
	key.ip = *ip;
	copy_mac(is.mac, eth->h_source);
	*(__u16 *)is.pad = 0;
	is.seen = bpf_ktime_get_coarse_ns();
	bpf_map_update_elem(&heard, &key, &is, BPF_ANY);
	return 0;
}

/* The VAP here whose address this is. */
static __always_inline struct weft_vap *find_owner(__u32 vni, const struct weft_ip *ip, __u32 *ifindex)
{
	struct weft_neighbour *n = find_neighbour(vni, ip);
	struct weft_location *at;
	struct weft_vn_mac key;
	struct weft_vap *to;

	if (!n || !n->known)
		return 0;
	key.vni = vni;
	copy_mac(key.mac, n->mac);
	*(__u16 *)key.pad = 0;
	at = bpf_map_lookup_elem(&fdb, &key);
	if (!at || at->kind != WEFT_AT_LOCAL)
		return 0;
	*ifindex = at->ifindex;
	to = bpf_map_lookup_elem(&vaps, ifindex);
	return to && to->vni == vni ? to : 0;
}

struct inward {
	struct weft_vap *to;
	__u32 ifindex; /* read once: the location may be another's a moment later */
	__u32 reason; /* why not, or 0 */
	bool moved;
	bool group; /* for all VAPs of the VN */
	bool learn; /* its source */
	bool asks; /* for whoever has an address */
	bool carry; /* it is not for here, and this NVE carries what others do not know the way of */
	bool away; /* it is for one that was here and is to be sent on */
	bool restore; /* it came for this NVE's MAC address and is to have its owner's */
};

/* Writes `mac` into an option of `kind`; its length in octets, 0 if it does not add up. Global, as nd_option. */
__noinline int nd_rewrite(struct __sk_buff *skb, __u32 off, __u32 kind, __u64 mac)
{
	__u8 was[8], is[8];

	if (bpf_skb_load_bytes(skb, off, was, 8))
		return 0;
	if (was[0] != kind)
		return was[1] * 8;
	*(__u16 *)is = *(__u16 *)was;
	*(__u16 *)(is + 2) = mac;
	*(__u16 *)(is + 4) = mac >> 16;
	*(__u16 *)(is + 6) = mac >> 32;
	if (bpf_skb_store_bytes(skb, off, is, 8, 0))
		return 0;
	bpf_l4_csum_replace(skb, ETH_LEN + sizeof(struct ipv6hdr) + 2, 0,
			    bpf_csum_diff((void *)was, 8, (void *)is, 8, 0), 0);
	return 8;
}

/* The sender's MAC address, wherever else it is than in the Ethernet header, becomes this NVE's. */
static __noinline bool translate_sender(struct __sk_buff *skb, __u32 where)
{
	struct weft_config *cfg = get_config();
	__u32 off = ETH_LEN + sizeof(struct ipv6hdr) + NS_LEN, end, len;
	__be16 payload;
	__u64 mac;
	int i;

	if (!cfg)
		return false;
	if (where == SENDER_NOWHERE)
		return true;
	if (where == SENDER_IN_ARP)
		return !bpf_skb_store_bytes(skb, ETH_LEN + 8, cfg->node_mac, 6, 0);
	if (bpf_skb_load_bytes(skb, ETH_LEN + 4, &payload, 2))
		return false;
	end = ETH_LEN + sizeof(struct ipv6hdr) + bpf_ntohs(payload);
	mac = mac_number(cfg->node_mac);
	for (i = 0; i < 8; i++) {
		if (off + 8 > end)
			break;
		len = nd_rewrite(skb, off, where, mac);
		if (!len)
			return false;
		off += len & OPTION_LEN;
	}
	return true;
}

/* A unicast frame out of a VAP to another NVE; other values than GO_ON are what the program returns. */
static __noinline int translate_out(struct __sk_buff *skb, const struct where *w, struct eth *eth,
				    const struct l4 *l4)
{
	struct weft_config *cfg = get_config();
	__u32 where = SENDER_NOWHERE;
	__u8 type;

	if (!w || !eth || !l4 || !cfg)
		return TC_ACT_SHOT;
	if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		where = SENDER_IN_ARP;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (l4->proto == IPPROTO_ICMPV6 && l4->direct && !l4->later &&
		    !bpf_skb_load_bytes(skb, l4->off, &type, 1) && (type == ND_NS || type == ND_NA))
			where = type - ND_NS + 1;
	} else if (eth->h_proto != bpf_htons(ETH_P_IP)) {
		return drop(skb, *w, WEFT_UNTRANSLATABLE);
	}
	copy_mac(eth->h_source, cfg->node_mac);
	if (!translate_sender(skb, where) || bpf_skb_store_bytes(skb, 6, eth->h_source, 6, 0))
		return drop(skb, *w, WEFT_KERNEL);
	return GO_ON;
}

/* A question that nobody here can answer is to go to the members: GO_ON, or what the program returns. */
static __noinline int ask_members(struct __sk_buff *skb, struct weft_vap *vap, bool arp)
{
	struct where w;

	if (!vap)
		return TC_ACT_SHOT;
	w.vni = vap->vni;
	w.path = vap->path;
	w.direction = WEFT_OUT;
	if (!translate_sender(skb, arp ? SENDER_IN_ARP : 1))
		return drop(skb, w, WEFT_KERNEL);
	return GO_ON;
}

/* Whose a frame is that came for this NVE, by the IP address it is for, and what is heard on the way. The
 * inner frame is at `off`, 0 when it is stripped. */
static __noinline int restore(struct __sk_buff *skb, struct inward *in, __u32 vni, const struct eth *eth, __u32 off)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);
	struct weft_ip ip, sender;
	struct ipv6hdr six;
	struct arp arp;
	__be32 v4;
	__u8 type;

	if (!in || !eth)
		return 0;
	in->reason = WEFT_NO_SUCH_TS;
	if (!how || !translates(how->mode)) {
		in->learn = how && floods(how->mode);
		return 0;
	}
	in->learn = is_node(eth->h_source);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, off + ETH_LEN + 16, &v4, 4))
			goto malformed;
		ip_from_v4(&ip, v4);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, off + ETH_LEN, &six, sizeof(six)))
			goto malformed;
		ip_from_v6(&ip, &six.daddr);
		if (six.nexthdr == IPPROTO_ICMPV6 && six.hop_limit == 255 &&
		    !bpf_skb_load_bytes(skb, off + ETH_LEN + sizeof(six), &type, 1)) {
			if (type == ND_NS) {
				ip_from_v6(&sender, &six.saddr);
				hear(vni, &sender, eth);
			} else if (type == ND_NA &&
				   !bpf_skb_load_bytes(skb, off + ETH_LEN + sizeof(six) + 8, &sender, 16)) {
				hear(vni, &sender, eth);
			}
		}
	} else if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		if (off) { /* looked at when it is stripped */
			in->learn = false;
			in->reason = 0;
			return 0;
		}
		if (bpf_skb_load_bytes(skb, ETH_LEN, &arp, sizeof(arp)) || !is_arp(&arp))
			goto malformed;
		__builtin_memcpy(&v4, arp.spa, 4);
		ip_from_v4(&sender, v4);
		hear(vni, &sender, eth);
		__builtin_memcpy(&v4, arp.tpa, 4);
		ip_from_v4(&ip, v4);
	} else {
		in->reason = WEFT_UNTRANSLATABLE;
		return 0;
	}
	in->to = find_owner(vni, &ip, &in->ifindex);
	if (!in->to)
		return 0;
	in->reason = in->to->flags & WEFT_VAP_ACTIVATED ? 0 : WEFT_NOT_ACTIVATED;
	in->restore = true;
	return 0;
malformed:
	in->reason = WEFT_MALFORMED;
	return 0;
}

/* A member's question to all, stripped: for the one who can answer, if he is here. GO_ON: it is an announcement, for
 * all; of who is here another NVE announces nothing. */
static __noinline int ask_owner(struct __sk_buff *skb, __u32 vni, const struct eth *eth)
{
	struct weft_ip target, sender;
	struct weft_vap *to;
	__u32 ifindex = 0;
	struct where w;
	struct arp arp;
	__u8 hops, type, link[8];
	bool says;
	__be32 v4;

	w.vni = vni;
	w.path = WEFT_PATH_DEVICE;
	w.direction = WEFT_IN;
	if (!eth)
		return TC_ACT_SHOT;
	if (eth->h_proto == bpf_htons(ETH_P_ARP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, &arp, sizeof(arp)) || !is_arp(&arp) ||
		    arp.op != bpf_htons(1))
			return drop_inward(skb, w, WEFT_INNER_GROUP);
		__builtin_memcpy(&v4, arp.spa, 4);
		ip_from_v4(&sender, v4);
		__builtin_memcpy(&v4, arp.tpa, 4);
		ip_from_v4(&target, v4);
		says = v4 && v4 == sender.w[3];
		if (says && !(is_node(eth->h_source) && same_mac(eth->h_source, arp.sha)))
			return drop_inward(skb, w, WEFT_INNER_GROUP);
	} else {
		/* That it is a solicitation or an advertisement with nothing between was seen before. */
		if (bpf_skb_load_bytes(skb, ETH_LEN + 7, &hops, 1) || hops != 255 ||
		    bpf_skb_load_bytes(skb, ETH_LEN + 8, &sender, 16) ||
		    bpf_skb_load_bytes(skb, ETH_LEN + sizeof(struct ipv6hdr), &type, 1) ||
		    bpf_skb_load_bytes(skb, ETH_LEN + sizeof(struct ipv6hdr) + 8, &target, 16))
			return drop_inward(skb, w, WEFT_INNER_GROUP);
		says = type == ND_NA;
		if (says) {
			/* Its first option: nobody is to take it for another's. */
			if (!is_node(eth->h_source) || bpf_skb_load_bytes(skb, ETH_LEN + sizeof(struct ipv6hdr) + NS_LEN, link, 8) ||
			    link[0] != SENDER_IN_NA || link[1] != 1 || !same_mac(eth->h_source, link + 2))
				return drop_inward(skb, w, WEFT_INNER_GROUP);
			sender = target;
		}
	}
	to = find_owner(vni, &target, &ifindex);
	if (says && to && to->flags & WEFT_VAP_ACTIVATED)
		return drop_inward(skb, w, WEFT_FENCED);
	hear(vni, &sender, eth);
	if (says)
		return GO_ON;
	if (!to || !(to->flags & WEFT_VAP_ACTIVATED))
		return drop_inward(skb, w, to ? WEFT_NOT_ACTIVATED : WEFT_NO_SUCH_TS);
	count_hot(amount_of(skb, 0), to->slot, WEFT_HOT_DELIVERED + WEFT_PATH_DEVICE);
	return deliver(skb, to, ifindex, WEFT_DELIVERED);
}

#endif
