// SPDX-License-Identifier: GPL-2.0
/*
 * What pages.c and slots.c both measure with.
 */
#include "pages.h"

u64 nolocks_loop;
struct page *nolocks_pages[NOLOCKS_ROOM];
