// SPDX-License-Identifier: GPL-2.0
/*
 * The parameter case=, which Rust's module! cannot have: it takes integers and
 * bool only.
 */
#include <linux/moduleparam.h>

#include "helpers.h"

/* Room for all names of a module several times over; more is refused. */
static char nolocks_case[2048];

module_param_string(case, nolocks_case, sizeof(nolocks_case), 0);
MODULE_PARM_DESC(case, "Cases to run, by name, separated by commas; * stands for any text, ? for any character; none: all");

const char *nolocks_case_parameter(void)
{
	return nolocks_case;
}
