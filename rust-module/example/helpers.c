// SPDX-License-Identifier: GPL-2.0

#include <linux/irqflags.h>

#include "../lib/nolocks/helpers.c"
#include "../lib/queue/helpers.c"

bool nolocks_example_irqs_disabled(void);

bool nolocks_example_irqs_disabled(void)
{
	return irqs_disabled();
}
