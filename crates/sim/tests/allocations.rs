//! A Map-Request of an asker that is known costs no allocation, whatever it asks for.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weft_model::Time;

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local `Cell`
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` or `realloc` above, hence from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as for `dealloc`; the caller's promises about `size` are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn n4_a_request_of_a_known_asker_allocates_nothing() {
    const TSIS: u32 = 300;
    let mut shard = common::shard(10, TSIS);
    // Existing and not existing MAC, IPv4 and IPv6 addresses.
    let requests: Vec<_> = (0..600)
        .flat_map(|n| (0..3).map(move |kind| common::request(n % 10, common::eid(n, kind), u64::from(n))))
        .collect();
    let mut octets = Vec::with_capacity(4096);
    let mut pass = |shard: &mut weft_oracle::core::Shard, now: Time| {
        let before = COUNT.get();
        let mut answered = 0;
        for (from, request) in &requests {
            shard.handle_datagram(now, *from, common::ORACLE, request);
            while shard.poll_transmit(&mut octets).is_some() {
                answered += 1;
            }
        }
        (COUNT.get() - before, answered)
    };
    let (first, answered) = pass(&mut shard, Time::from_secs(2));
    assert_eq!(answered, 1800);
    for second in 4..14 {
        assert_eq!(pass(&mut shard, Time::from_secs(second)), (0, 1800), "allocations and answers");
    }
    let counters = shard.counters();
    assert_eq!((counters.replies_registered, counters.replies_negative), (11 * 900, 11 * 900));
    // Remembering somebody new costs its share of a tree's node and its list of sources.
    assert!(first < 2 * 1800, "{first} allocations for 1800 new askers");
}
