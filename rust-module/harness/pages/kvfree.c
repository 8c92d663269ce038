// SPDX-License-Identifier: GPL-2.0
/*
 * Objects for kvfree_rcu(), which is a macro.
 */
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "../helpers.h"

struct nolocks_object {
	/* In front, as debugobjects knows what is freed by its own address. */
	struct rcu_head rcu;
	struct nolocks_object *next;
};

static struct kmem_cache *nolocks_objects;

/*
 * SLUB has no sheaves for a cache that kmemleak is not told of, so that its
 * objects need kvfree_rcu()'s blocks on every kernel. May sleep.
 */
int nolocks_objects_begin(void)
{
	nolocks_objects = kmem_cache_create("nolocks_objects",
					    sizeof(struct nolocks_object), 0,
					    SLAB_NOLEAKTRACE, NULL);
	return nolocks_objects ? 0 : -ENOMEM;
}

/* Waits for all objects, and warns if one is left. */
void nolocks_objects_end(void)
{
	kmem_cache_destroy(nolocks_objects);
}

/*
 * Returns a chain of @nr objects, or NULL. May sleep.
 *
 * debugobjects has one of its own for each. It turns itself off if it has none
 * left, and allocates more where a task may sleep only: here.
 */
struct nolocks_object *nolocks_objects_alloc(unsigned int nr)
{
	struct nolocks_object *chain = NULL, *object;

	while (nr--) {
		object = kmem_cache_alloc(nolocks_objects, GFP_KERNEL);
		if (!object) {
			nolocks_objects_kvfree_rcu(chain);
			return NULL;
		}
		init_rcu_head(&object->rcu);
		object->next = chain;
		chain = object;
	}
	return chain;
}

/* In any context but NMI. */
void nolocks_objects_kvfree_rcu(struct nolocks_object *chain)
{
	while (chain) {
		struct nolocks_object *object = chain;

		chain = object->next;
		kvfree_rcu(object, rcu);
	}
}

/* As callers whose objects have no head. May sleep. */
void nolocks_objects_kvfree_rcu_mightsleep(struct nolocks_object *chain)
{
	while (chain) {
		struct nolocks_object *object = chain;

		chain = object->next;
		kvfree_rcu_mightsleep(object);
	}
}
