/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and times as text, without stdio: it would be most of this program. */
#include "monitor.h"

#include <string.h>

char *put_text(char *to, const char *text)
{
	size_t size = strlen(text);
	memcpy(to, text, size);
	return to + size;
}

char *put_number(char *to, uint64_t number, int min_digits)
{
	char digits[20];
	int count = 0;
	do {
		digits[count++] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	for (int zeros = min_digits - count; zeros > 0; zeros--)
		*to++ = '0';
	while (count > 0)
		*to++ = digits[--count];
	return to;
}

/* The year is counted from March, so that the leap day is its last day and months follow one line. */
char *put_time(char *to, const struct timespec *time)
{
	const uint64_t seconds = time->tv_sec > 0 ? (uint64_t)time->tv_sec : 0;
	const uint64_t days = seconds / 86400 + 719468; /* since 1 March of the year 0 */
	const uint64_t era = days / 146097, day_of_era = days % 146097;
	const uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	const uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	const uint64_t month = (5 * day_of_year + 2) / 153; /* 0 is March */
	const uint64_t year = era * 400 + year_of_era + (month >= 10);

	to = put_number(to, year, 4);
	*to++ = '-';
	to = put_number(to, month < 10 ? month + 3 : month - 9, 2);
	*to++ = '-';
	to = put_number(to, day_of_year - (153 * month + 2) / 5 + 1, 2);
	*to++ = 'T';
	to = put_number(to, seconds % 86400 / 3600, 2);
	*to++ = ':';
	to = put_number(to, seconds % 3600 / 60, 2);
	*to++ = ':';
	to = put_number(to, seconds % 60, 2);
	*to++ = '.';
	to = put_number(to, (uint64_t)time->tv_nsec, 9);
	*to++ = 'Z';
	return to;
}

int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void advance_deadline(int64_t *deadline_ms, int64_t candidate_ms)
{
	if (*deadline_ms < 0 || candidate_ms < *deadline_ms)
		*deadline_ms = candidate_ms;
}
