// SPDX-License-Identifier: GPL-2.0

//! The cases, in their order.

use crate::{
    books,
    context::Context,
    contexts::{
        self,
        context, //
    },
    destructors,
    drains,
    env::Env,
    ktap::Case,
    latency,
    life,
    locks,
    memory,
    peaks,
    promises,
    races, //
};

pub(crate) const CASES: &[Case<Env>] = &[
    ("task", |env| context(env, Context::Task)),
    ("raw_irqsave", |env| context(env, Context::RawIrqsave)),
    ("raw", |env| context(env, Context::Raw)),
    ("preempt_off", |env| context(env, Context::PreemptOff)),
    ("softirq", |env| context(env, Context::Softirq)),
    ("hardirq", |env| context(env, Context::Hardirq)),
    ("nmi", |env| context(env, Context::Nmi)),
    ("pi_lock", |env| context(env, Context::PiLock)),
    ("peak", peaks::peak),
    ("readers", races::readers_and_writers),
    ("nested_nmi", races::nested_nmi),
    ("boxes", contexts::boxes),
    ("destructors", destructors::destructors),
    ("mightsleep", memory::mightsleep),
    ("no_memory", memory::no_memory),
    ("retry", memory::retry),
    ("full", drains::drained_when_full),
    ("time", drains::drained_by_time),
    ("shrinker", memory::shrinker),
    ("barrier", drains::barrier),
    ("drop_in_flight", life::drop_in_flight),
    ("cpu_offline", life::cpu_offline),
    ("locks", locks::locks),
    ("children", destructors::children),
    ("peak_atomic", peaks::peak_atomic),
    ("creation", life::creation),
    ("debugfs", books::debugfs),
    ("drop_caches", memory::drop_caches),
    ("promises", promises::all),
    ("latency", latency::latency),
    ("ledger", books::ledger),
];
