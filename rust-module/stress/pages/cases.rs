// SPDX-License-Identifier: GPL-2.0

//! The cases, in their order.

use crate::{
    all_cpus,
    charged,
    cma,
    contents,
    context::Context,
    contexts::{
        self,
        context, //
    },
    deferred,
    env::Env,
    flags,
    hotplug,
    irq_works,
    ktap::Case,
    locks,
    nested,
    storm,
    sysctl,
    tick, //
};

pub(crate) const CASES: &[Case<Env>] = &[
    ("unregistered", contexts::unregistered),
    ("task", |env| context(env, Context::Task)),
    ("raw_irqsave", |env| context(env, Context::RawIrqsave)),
    ("raw", |env| context(env, Context::Raw)),
    ("preempt_off", |env| context(env, Context::PreemptOff)),
    ("softirq", |env| context(env, Context::Softirq)),
    ("hardirq", |env| context(env, Context::Hardirq)),
    ("nmi", |env| context(env, Context::Nmi)),
    ("pi_lock", |env| context(env, Context::PiLock)),
    ("all_cpus", all_cpus::all_cpus),
    ("nested_nmi", nested::in_nmi),
    ("nested_hardirq", nested::in_hardirq),
    ("free_elsewhere", contexts::free_elsewhere),
    ("bursts", contexts::bursts),
    ("handed_out_once", contents::handed_out_once),
    ("zero", contents::zero),
    ("cma", cma::never_unmovable),
    ("tick", tick::tick),
    ("tick_beside_forks", tick::beside_forks),
    ("tick_beside_readers", tick::beside_readers),
    ("nested_slots", storm::slots),
    ("nested_refill", storm::refill),
    ("charged", charged::charged),
    ("pcp_high", deferred::pcp_high),
    ("deferred_irqs_off", deferred::irqs_off),
    ("deferred_dying", deferred::dying),
    ("irq_works", irq_works::irq_works),
    ("sysctl", sysctl::page_slots),
    ("cpu_hotplug", hotplug::cpu),
    ("hotplug_kworkers", hotplug::kworkers),
    ("memory_hotplug", hotplug::memory),
    ("pressure", hotplug::pressure),
    ("locks", locks::locks),
    ("flags", flags::flags),
    ("ledger", |env| Ok(env.close())),
];
