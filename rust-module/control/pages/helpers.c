// SPDX-License-Identifier: GPL-2.0

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/poison.h>

#include "../../harness/context.c"
#include "../../harness/oracle.c"
#include "../../harness/pages/pages.c"

/* Leaves something in @page that none that is freed may have. */
void nolocks_spoil_page(struct page *page)
{
	page->mapping = (struct address_space *)PAGE_SIZE;
}

/* As page_pool marks its own. */
void nolocks_pool_page(struct page *page)
{
	page->pp_magic = PP_SIGNATURE;
}

/* The second page of two, which count as one, as if somebody had it. */
struct page *nolocks_alloc_tail(void)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_COMP, 1);

	if (!page)
		return NULL;
	set_page_count(page + 1, 1);
	return page + 1;
}
