// SPDX-License-Identifier: GPL-2.0
/*
 * Objects charged to any memory cgroup, and what still has its obj_cgroup.
 */
#include <linux/cgroup.h>
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "../helpers.h"

/* Freed in any context. */
void nolocks_free_charged(void *object)
{
	kfree_nolock(object);
}

#ifdef CONFIG_MEMCG
/* To be put. NULL where there is none of its own at @path. May sleep. */
struct mem_cgroup *nolocks_memcg_get(const char *path)
{
	struct cgroup *cgroup = cgroup_get_from_path(path);
	struct mem_cgroup *memcg = NULL;
	struct cgroup_subsys_state *css;

	if (IS_ERR(cgroup))
		return NULL;
	/* An ancestor's where this one does not control memory */
	css = cgroup_get_e_css(cgroup, &memory_cgrp_subsys);
	if (css->cgroup == cgroup)
		memcg = mem_cgroup_from_css(css);
	else
		css_put(css);
	cgroup_put(cgroup);
	return memcg;
}

void nolocks_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

/* For kfree_nolock(). NULL if there is none or it is not charged. May sleep. */
void *nolocks_alloc_charged(struct mem_cgroup *memcg)
{
	struct mem_cgroup *old = set_active_memcg(memcg);
	void *object = kmalloc_nolock(64, __GFP_ACCOUNT, NUMA_NO_NODE);

	set_active_memcg(old);
	if (object && page_counter_read(&memcg->memory))
		return object;
	kfree_nolock(object);
	return NULL;
}

/* What this CPU's objects are charged to, valid as long as there is one. */
struct obj_cgroup *nolocks_objcg(struct mem_cgroup *memcg)
{
	guard(rcu)();
	return rcu_dereference(memcg->nodeinfo[numa_node_id()]->objcg);
}

/* Whether only one object has it: its cgroup has gone, and no CPU's stock keeps it. */
bool nolocks_objcg_has_one(struct obj_cgroup *objcg)
{
	return atomic_long_read(&objcg->refcnt.data->count) == 1;
}

/* Whether the obj_cgroup of some child that was removed is still there. */
bool nolocks_memcg_inherits(struct mem_cgroup *memcg)
{
	int nid;

	for_each_node(nid)
		if (!list_empty(&memcg->nodeinfo[nid]->objcg_list))
			return true;
	return false;
}
#else
struct mem_cgroup *nolocks_memcg_get(const char *path)
{
	return NULL;
}

void nolocks_memcg_put(struct mem_cgroup *memcg)
{
}

void *nolocks_alloc_charged(struct mem_cgroup *memcg)
{
	return NULL;
}

struct obj_cgroup *nolocks_objcg(struct mem_cgroup *memcg)
{
	return NULL;
}

bool nolocks_objcg_has_one(struct obj_cgroup *objcg)
{
	return false;
}

bool nolocks_memcg_inherits(struct mem_cgroup *memcg)
{
	return false;
}
#endif
