/* SPDX-License-Identifier: GPL-2.0 OR MIT OR Apache-2.0 */
/* What the programs and their loader agree on: keys, values, codes. Any change of meaning or layout
 * raises WEFT_ABI_VERSION; the loader refuses pinned maps of another version.
 * IP addresses are 16 octets in network order, IPv4 as ::ffff:a.b.c.d. Other integers are the host's.
 * Every structure is padded by hand: keys are compared octet by octet. */
#ifndef WEFT_ABI_H
#define WEFT_ABI_H

#include <linux/types.h>

#define WEFT_ABI_VERSION 12

struct weft_ip {
	__u32 w[4];
};

/* Map `config`: one entry, key 0. */
struct weft_config {
	__u32 vxlan_ifindex; /* the device path's VXLAN device, and where route lookups enter */
	__u32 families;	     /* WEFT_FAMILY_*: those that have an RLOC */
	struct weft_ip rloc4;
	struct weft_ip rloc6;
	__u64 netns; /* inode of the network namespace the ifindexes are of */
	__u64 fence_until; /* CLOCK_MONOTONIC ns: until then the locations are an Oracle's latest word */
	__u64 vouched;	   /* when that was said last */
	__u8 node_mac[6];  /* stands for this NVE where it translates */
	__u8 pad[2];
	__u64 ageing; /* ns after which what was learned from frames counts no more */
};

#define WEFT_FAMILY_V4 1
#define WEFT_FAMILY_V6 2

/* A token bucket for octets. */
struct weft_meter {
	__u64 rate;  /* bits a second, or 0: no limit */
	__u64 tat;   /* its state: theoretical arrival time, CLOCK_MONOTONIC ns */
	__u32 burst; /* octets that may pass at once */
	__u32 shift;
	__u64 octet;  /* how long an octet takes, ns << shift: nothing is divided for a frame */
	__u64 window; /* how long the burst takes, ns */
};

/* Map `vaps`: ifindex -> this. */
struct weft_vap {
	__u32 vni;
	__u8 mac[6];
	__u16 mtu;
	__u8 kind;  /* WEFT_KIND_* */
	__u8 path;  /* WEFT_PATH_* */
	__u8 flags; /* WEFT_VAP_* */
	__u8 mode;  /* WEFT_LEARNS_* | WEFT_REPLICATES | WEFT_MISS_*, its VN's: here because every frame looks here */
	__u32 slot; /* in `hot`, of its VN */
	__be32 ip4; /* one each of its addresses, or zero: those that most frames come from */
	struct weft_ip ip6;
	__u32 previous; /* the NVE, as in `peers`, that it moved here from and that sends its frames on, or 0 */
	__u32 ifindex; /* its own key */
	__u32 policy;	  /* what its rules are found by, or 0: everything may pass */
	__u32 generation; /* what was let through under another one is looked up again */
	__u64 punt_interval; /* ns between two punts */
	__u64 punt_window;   /* ns a burst may run ahead */
	__u64 punt_tat;	     /* state of the punt bucket: theoretical arrival time, CLOCK_MONOTONIC ns */
	__u64 icmp_tat;	     /* the same for generated ICMP errors */
	__u64 storm_tat;     /* the same for frames that are replicated */
	__u64 open_interval; /* what a connection that nobody has answered takes of WEFT_OPEN_WINDOW, in ns */
	__u64 open_tat;	     /* state of the bucket that those that it opens are taken from */
	__u64 opened_tat;    /* and those that others open to it */
	__u64 since;	     /* CLOCK_MONOTONIC ns: connections born up to then are another tenant system's */
	struct weft_meter send;	   /* what it sends */
	struct weft_meter receive; /* what it is sent */
	__u8 ttl;	  /* outer, of what it sends */
	__u8 dscp;	  /* likewise, or WEFT_DSCP_COPY */
	__u16 port;	  /* the lowest outer source port */
	__u16 more_ports; /* how many above that */
	__u16 pad2;
};

#define WEFT_KIND_VETH 0
#define WEFT_KIND_TAP 1
#define WEFT_PATH_DIRECT 0
#define WEFT_PATH_DEVICE 1
#define WEFT_VAP_ACTIVATED 1
#define WEFT_VAP_LOG_REFUSED 2
#define WEFT_VAP_WAITS 4 /* not Activated: the agent is told of a frame from its MAC */
#define WEFT_DSCP_COPY 64 /* the inner packet's */

/* Key of `vap_ips` (scope = ifindex, value __u32 1), `neighbours`, `heard` and `groups` (scope = VNI). */
struct weft_scoped_ip {
	__u32 scope;
	struct weft_ip ip;
};

/* Key of `fdb`, `away`, `learned` and `asked`. */
struct weft_vn_mac {
	__u32 vni;
	__u8 mac[6];
	__u8 pad[2];
};

/* Map `fdb`. */
struct weft_location {
	__u32 kind;    /* WEFT_AT_* */
	__u32 ifindex; /* of WEFT_AT_LOCAL */
	struct weft_ip rloc; /* of WEFT_AT_REMOTE */
	__u32 epoch;
	__u32 other; /* how many of 2^32 flows go to the RLOC beside that one (`peers`) */
	__u64 last_used; /* CLOCK_MONOTONIC ns, 0 = never; written at most once a second */
	/* CLOCK_MONOTONIC ns: since when frames came from another NVE, 0 = none did, and the last of them */
	__u64 contested;
	__u64 contested_last;
};

#define WEFT_AT_NOWHERE 0
#define WEFT_AT_LOCAL 1
#define WEFT_AT_REMOTE 2

/* Map `away`: whereto a tenant system went that was here. Looked at where `fdb` says nothing of what one here sends,
 * and for what comes from other NVEs where it does not say that it is here: every NVE on its way knows the next. */
struct weft_away {
	struct weft_ip rloc;
	__u32 epoch; /* of the grant by which it is there */
};

/* Map `learned`: where a VN's frames from a MAC address came from last. */
struct weft_learned {
	struct weft_ip rloc;
	__u64 seen; /* CLOCK_MONOTONIC ns */
};

/* Map `heard`, keyed as `neighbours`: behind which NVE, by its MAC address, an IP address is. */
struct weft_heard {
	__u8 mac[6];
	__u8 pad[2];
	__u64 seen; /* CLOCK_MONOTONIC ns */
};

/* Map `neighbours`. */
struct weft_neighbour {
	__u8 mac[6];
	__u8 known; /* 0: nobody has the address */
	__u8 pad;
};

/* Map `vns`: VNI -> this. */
struct weft_vn {
	__u32 vaps; /* in it here */
	__u32 slot; /* in `hot` */
};

/* Map `settings`: VNI -> this. A VN without is treated as one of zeros. */
struct weft_settings {
	__u32 members; /* of it in `members` */
	__u8 mode;     /* WEFT_LEARNS_* | WEFT_REPLICATES | WEFT_MISS_* */
	__u8 carries;  /* this NVE is its gateway */
	__u8 pad[2];
	__u32 storm_rate;  /* frames a second that one VAP may have replicated */
	__u32 storm_burst; /* and how many at once */
	struct weft_ip gateway; /* the NVE that carries what others do not know the way of, or zero */
};

#define WEFT_LEARNS 3 /* mask */
#define WEFT_LEARNS_ORACLE 0
#define WEFT_LEARNS_FLOOD 1
#define WEFT_LEARNS_TRANSLATE 2
#define WEFT_LEARNS_DISTRIBUTE 3
#define WEFT_REPLICATES 4
/* What becomes of a frame whose destination is asked for; neither: the agent holds it. */
#define WEFT_MISS 0xc0 /* mask */
#define WEFT_MISS_DROP 0x40
#define WEFT_MISS_GATEWAY 0x80

/* Key of `members` (value struct weft_ip) and of `vn_vaps` (value __u32, ifindex). A VN's entries are
 * numbered from 0; how many there are is in `settings` and `vns`. The last may be missing for a moment. */
struct weft_indexed {
	__u32 vni;
	__u32 index;
};

/* Map `groups`: who asked for a group's frames, by IGMP or MLD. A group without an entry goes to those of the entry
 * at the address of zeros, which want all; without that one, to nobody. */
#define WEFT_GROUP_SIZE 128
#define WEFT_GROUP_ALL 0xffffffffU /* too many to be named: all of the VN */
struct weft_group {
	__u32 vaps;    /* how many of `ifindex` */
	__u32 members; /* how many of `rloc` */
	__u32 ifindex[WEFT_GROUP_SIZE];
	struct weft_ip rloc[WEFT_GROUP_SIZE];
};

/* Map `peers`: struct weft_ip -> this. */
struct weft_peer {
	__u32 may;  /* WEFT_PEER_* */
	__u32 node; /* the same for all RLOCs of an NVE */
	struct weft_ip other; /* the RLOC of the other family that it has beside this one, or zero */
};

#define WEFT_PEER_NVE 1
#define WEFT_PEER_ORACLE 2

/* How long frames from another NVE than the one a location names are let through, and after which
 * silence they are again, in ns. */
#define WEFT_FENCE_AFTER 2000000000ULL
#define WEFT_FENCE_FORGETS 600000000000ULL

/* Map `counters`, per CPU. */
struct weft_count_key {
	__u32 vni; /* 0: of no VN that is here */
	__u16 reason;
	__u8 path;
	__u8 direction; /* WEFT_OUT, WEFT_IN */
};

struct weft_count {
	__u64 packets;
	__u64 bytes;
};

/* Map `hot`, per CPU, an array: what happens to most frames of a VN, indexed by WEFT_HOT_* + path. */
struct weft_hot {
	struct weft_count of[6];
};

#define WEFT_HOT_DELIVERED 0
#define WEFT_HOT_ENCAPSULATED 2
#define WEFT_HOT_LOCAL 4

#define WEFT_OUT 0
#define WEFT_IN 1

/* Map `rules`, by longest prefix: what a policy allows. Whatever comes before the number counts as a whole. */
struct weft_match {
	__u32 policy;
	__u32 class;	/* of the remote address, or 0: every one */
	__u16 toward;	/* WEFT_OUT, WEFT_IN */
	__u16 protocol; /* or WEFT_ANY_PROTOCOL */
	__be16 number;	/* destination port, or ICMP type and code, or 0 */
	__u16 pad;
};

struct weft_rule_key {
	__u32 prefix; /* WEFT_RULE_PREFIX and how many bits of the number count */
	struct weft_match match;
};

#define WEFT_RULE_PREFIX 96
#define WEFT_ANY_PROTOCOL 256

struct weft_rule {
	__u32 rule; /* in `rule_hits` */
	__u32 log;
};

/* How many rules are counted in `rule_hits`, an array of struct weft_count, per CPU. */
#define WEFT_RULE_COUNTERS 16384

/* Map `classes` (value __u32), by longest prefix: what a VN's rules know an address as. */
struct weft_of_class {
	__u32 vni;
	__u32 family; /* 4, 6: ::/0 holds no IPv4 address */
	struct weft_ip ip;
};

struct weft_class_key {
	__u32 prefix; /* WEFT_CLASS_PREFIX and how many bits of the address count */
	struct weft_of_class of;
};

#define WEFT_CLASS_PREFIX 64

/* Map `conns`: a connection of a VAP with a policy, seen from there, so that it is the same wherever the VAP is. */
struct weft_conn_key {
	__u32 vni;
	struct weft_ip local;
	struct weft_ip remote;
	__be16 local_port;  /* of an ICMP question the identifier */
	__be16 remote_port; /* of an ICMP question its type and code */
	__u8 protocol;
	__u8 pad[3];
};

struct weft_conn {
	__u32 of; /* what its key adds up to: the place may be another one's while it is looked at */
	__u32 policy; /* that let it through; 0: none here did */
	__u64 seen; /* CLOCK_MONOTONIC ns of its last packet, to about a second */
	__u64 born; /* the same of its first one, or of when it came here with its tenant system; after `since` of its VAP */
	__u32 generation;
	__u16 rule;
	__u8 state;  /* WEFT_CONN_* */
	__u8 opened; /* WEFT_OUT, WEFT_IN: which way its first packet went */
	__u32 to; /* the MAC address that was seen to be the remote one's, by its last octets, or 0 */
	__u32 pad;
};

/* Of other protocols than TCP the first and ESTABLISHED only. */
#define WEFT_CONN_OPENING 0 /* nobody has answered */
#define WEFT_CONN_ANSWERED 1 /* a SYN was answered by one */
#define WEFT_CONN_ESTABLISHED 2
#define WEFT_CONN_ENDED_HERE 3 /* the VAP has sent a FIN */
#define WEFT_CONN_ENDED_THERE 4
#define WEFT_CONN_CLOSING 5 /* both have, or it was reset before it was established or after one had */
#define WEFT_CONN_RESET 6 /* somebody said that it is: if it goes on it was not */

/* After which silence a connection is as none, in ns. */
#define WEFT_TCP_OPENING 60000000000ULL
#define WEFT_TCP_ESTABLISHED 86400000000000ULL
#define WEFT_TCP_CLOSING 30000000000ULL
#define WEFT_TCP_RESET 300000000000ULL
#define WEFT_UDP_OPENING 60000000000ULL
#define WEFT_UDP_ESTABLISHED 180000000000ULL
#define WEFT_ICMP_KEPT 30000000000ULL
#define WEFT_OTHER_KEPT 120000000000ULL

/* In which the connections of a VAP that nobody answers are followed: more of them pass, but not what answers. */
#define WEFT_OPEN_WINDOW 60000000000ULL

/* Map `conn_counts`, per CPU: entries of `conns` at 0 by the programs, at 1 by the agent. What was inserted, not
 * removed, and is not there any more had to make room. */
struct weft_conn_counts {
	__u64 inserted;
	__u64 removed;
	__u64 unfollowed; /* not inserted: too many that nobody answers */
};

/* Map `fragments`: packets whose first fragment was let through. */
struct weft_fragment_key {
	__u32 vni;
	struct weft_ip src;
	struct weft_ip dst;
	__u32 id;
	__u32 policy;  /* of a copy: whose; else 0 */
	__u8 protocol; /* of IPv6 0: later fragments may say another */
	__u8 toward;   /* WEFT_OUT, WEFT_IN */
	__u8 pad[2];
};

struct weft_fragment {
	__u64 seen; /* CLOCK_MONOTONIC ns */
	__u32 rule;
	__u32 pad;
};

/* How long their other fragments may take, in ns. */
#define WEFT_FRAGMENT_KEPT 30000000000ULL

/* Ring buffer `punts`. */
#define WEFT_PUNT_BYTES 128
struct weft_punt {
	__u32 ifindex;
	__u32 vni;
	__u32 reason; /* WEFT_PUNT_* */
	__u32 len;    /* octets of `frame` that hold anything */
	__u8 dst[6];
	__u8 toward; /* of WEFT_PUNT_ALLOWED and WEFT_PUNT_REFUSED: WEFT_OUT, WEFT_IN */
	__u8 pad;
	struct weft_ip from; /* the NVE that sent it, or zero */
	__u32 rule; /* of WEFT_PUNT_ALLOWED */
	__u8 frame[WEFT_PUNT_BYTES];
};

/* The same for a frame that the agent may send on: as much of it as any tenant MTU over an Ethernet
 * underlay. */
#define WEFT_HELD_BYTES 1600
struct weft_held {
	__u32 ifindex;
	__u32 vni;
	__u32 reason;
	__u32 len;
	__u8 dst[6];
	__u8 toward;
	__u8 pad;
	struct weft_ip from;
	__u32 rule;
	__u8 frame[WEFT_HELD_BYTES];
};

#define WEFT_PUNT_ARP 1
#define WEFT_PUNT_ND 2
#define WEFT_PUNT_LINK_LOCAL 3
#define WEFT_PUNT_MAC 4
#define WEFT_PUNT_ROUTE 5 /* struct weft_held */
#define WEFT_PUNT_MAC_HELD 6 /* struct weft_held */
#define WEFT_PUNT_ROUTE_SEEN 7
#define WEFT_PUNT_NO_TS 8
#define WEFT_PUNT_REPORT 9 /* struct weft_held */
#define WEFT_PUNT_CARRIED 10 /* struct weft_held */
#define WEFT_PUNT_ALLOWED 11
#define WEFT_PUNT_REFUSED 12
#define WEFT_PUNT_FIRST 13

/* Map `traces`: packets that are traced, by WEFT_TRACE_ID. */
struct weft_trace {
	struct weft_ip rloc; /* of the NVE that it may leave for, or of the one that it comes from */
	__u64 until;	     /* CLOCK_MONOTONIC ns: it may come until then */
	__u32 vni;
	__u32 flags; /* WEFT_TRACE_DELIVERS, WEFT_TRACE_ARRIVES */
	struct weft_ip next; /* of one that comes: of the NVE that it may go on to, or zero */
};

#define WEFT_TRACE_DELIVERS 1 /* it does not end before its tenant system */
#define WEFT_TRACE_ARRIVES 2  /* from another NVE */

/* skb->mark of a traced packet, and which bits of it say which; in VXLAN's first reserved field those alone. */
#define WEFT_TRACE 0x58000000U
#define WEFT_TRACE_ID 0xffffffU

/* Ring buffer `steps`. */
struct weft_step {
	__u32 id;
	__u32 kind; /* WEFT_STEP_* */
	__u32 ifindex;
	__u32 a;
	__u32 b;
	__u32 pad;
	struct weft_ip ip;
};

#define WEFT_STEP_CHECKED 1  /* nothing in it is spoofed */
#define WEFT_STEP_POLICY 2   /* a: ifindex of the VAP and WEFT_STEP_IN; b: 0 or the rule and 1 */
#define WEFT_STEP_KNOWN 3    /* before that: it is of a connection. a: likewise; b: WEFT_CONN_* */
#define WEFT_STEP_LOCATION 4 /* a: WEFT_STEP_BY_*; b: 0 or the ifindex of the VAP; ip: else the RLOC */
#define WEFT_STEP_ARRIVED 5  /* a: outer TTL; b: VNI; ip: the RLOC it came from */
#define WEFT_STEP_END 6      /* a: WEFT_DID_* << 16 | reason; b: as in cb[2]. After PASS and PUNT more may come. */

#define WEFT_STEP_IN 0x80000000U
#define WEFT_STEP_BY_LEARNING 0 /* from frames, or by where it went from here */
#define WEFT_STEP_BY_TABLE 1
#define WEFT_STEP_BY_GATEWAY 2

/* What became of a frame. */
enum weft_reason {
	WEFT_DELIVERED = 1,
	WEFT_ENCAPSULATED = 2,
	WEFT_LOCAL = 3,
	WEFT_ANSWERED = 4,
	WEFT_PUNTED = 5,
	WEFT_ECHOED = 6,
	WEFT_SRC_MOVED = 7,
	WEFT_REPLICATED = 8,
	WEFT_BY_GATEWAY = 9,
	WEFT_REDIRECTED = 10,
	WEFT_NO_VAP = 32,
	WEFT_NOT_ACTIVATED = 33,
	WEFT_VLAN_TAGGED = 34,
	WEFT_MALFORMED = 35,
	WEFT_SPOOFED_MAC = 36,
	WEFT_SPOOFED_ARP = 37,
	WEFT_SPOOFED_IP = 38,
	WEFT_SPOOFED_ND = 39,
	WEFT_HIDDEN_L4 = 40,
	WEFT_ROGUE_ROUTER = 41,
	WEFT_ROGUE_DHCP = 42,
	WEFT_ANNOUNCEMENT = 43,
	WEFT_OWN_ADDRESS = 44,
	WEFT_NOBODY = 45,
	WEFT_BUM_OFF = 46,
	WEFT_UNKNOWN_MAC = 47,
	WEFT_NOWHERE = 48,
	WEFT_TO_SELF = 49,
	WEFT_TOO_BIG = 50,
	WEFT_NO_RLOC = 51,
	WEFT_PUNT_LIMITED = 52,
	WEFT_PUNT_RING_FULL = 53,
	WEFT_FOREIGN_RLOC = 54,
	WEFT_BAD_VXLAN = 55,
	WEFT_UNKNOWN_VNI = 56,
	WEFT_INNER_GROUP = 57,
	WEFT_FENCED = 58,
	WEFT_NO_SUCH_TS = 59,
	WEFT_ECN_LOST = 60,
	WEFT_KERNEL = 61,
	WEFT_OTHER_LINK = 62,
	WEFT_STORM = 63,
	WEFT_UNTRANSLATABLE = 64,
	WEFT_NO_RECEIVER = 65,
	WEFT_REDIRECT_LOOP = 66,
	WEFT_DENIED = 67,
	WEFT_RATE_LIMITED = 68,
	WEFT_WRONG_MAC = 69,
};

/* skb->tc_index of everything that has come over an uplink: nothing else counts at the VXLAN device.
 * Not skb->mark, which firewalls set, clear and look at. */
#define WEFT_TAG 0x5745

/* What the programs leave in skb->cb for a test run: cb[0] one of these, cb[1] the reason, cb[2]
 * the ifindex a frame is handed to, the number of copies or, for a punt, WEFT_PUNT_*. */
#define WEFT_DID_DROP 1
#define WEFT_DID_PASS 2
#define WEFT_DID_DELIVER 3
#define WEFT_DID_REPLY 4
#define WEFT_DID_DIRECT 5
#define WEFT_DID_DEVICE 6
#define WEFT_DID_PUNT 7
#define WEFT_DID_REPLICATE 8
#define WEFT_DID_STOP 9 /* of a trace: the reason is what would have become of it */

/* In cb[3], and its complement in cb[4]: a test run, of which no copy is to leave. */
#define WEFT_DRY 0x57455654U

/* Liveness echo (UDP to the VXLAN port): eight zero octets where a VXLAN header would be (its I flag
 * clear), magic, nonce, kind. */
#define WEFT_ECHO_MAGIC "WEFTECHO"
#define WEFT_ECHO_NONCE 16
#define WEFT_ECHO_KIND 24
#define WEFT_ECHO_LEN 25
#define WEFT_ECHO_REQUEST 1
#define WEFT_ECHO_REPLY 2

#endif
