/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* Learning from frames: behind which NVE the sender of one was seen last (RFC 7348 section 4.1). */
#ifndef WEFT_FLOOD_H
#define WEFT_FLOOD_H

/* Null: nobody knows, or it was too long ago. */
static __always_inline struct weft_learned *find_learned(const struct weft_config *cfg, const struct weft_vn_mac *key,
							 __u64 now)
{
	struct weft_learned *at = bpf_map_lookup_elem(&learned, key);

	/* Signed: another CPU may have seen it since. */
	return at && (__s64)(now - at->seen) < (__s64)cfg->ageing ? at : 0;
}

/* The source of a frame that an NVE sent and that passed every check: the first from elsewhere moves it. */
__noinline int learn(__u32 vni, const struct eth *eth, const struct weft_ip *from)
{
	struct weft_vn_mac key;
	struct weft_learned *at, is;

	if (!eth || !from)
		return 0;
	key.vni = vni;
	copy_mac(key.mac, eth->h_source);
	*(__u16 *)key.pad = 0;
	is.seen = bpf_ktime_get_coarse_ns();
	at = bpf_map_lookup_elem(&learned, &key);
	if (at && same_ip(&at->rloc, from)) {
		if (at->seen != is.seen)
			at->seen = is.seen;
		return 0;
	}
	/* Replaced as a whole: nobody is to read half of an address. */
	is.rloc = *from;
	bpf_map_update_elem(&learned, &key, &is, BPF_ANY);
	return 0;
}

/* Whether to, where no VAP is at hand that would say so. */
static __noinline bool learns(__u32 vni)
{
	struct weft_settings *how = bpf_map_lookup_elem(&settings, &vni);

	return how && floods(how->mode);
}

#endif
