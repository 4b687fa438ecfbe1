/* Example: refuses commands that have emptied a production database by mistake.
 *
 * Settings: "commands", a list that takes the place of the built-in one; "only_in_migration" (false): refuse only from
 * phase migrate on. Everything else is forwarded; reads are mirrored and compared.
 */
#include "crossfade.h"

static cf_names denied;
static bool only_in_migration;
static const char *const standard[] = {"FLUSHALL", "FLUSHDB", "SWAPDB", "SHUTDOWN", "DEBUG", "TRUNCATE", "DROP", "dropDatabase", "drop"};

CF_EXPORT(cf_configure) uint32_t cf_configure(uint32_t length) {
    cf_config config = cf_read_config(length);
    cf_only(&config, (const char *[]){"commands", "only_in_migration"}, 2);
    only_in_migration = cf_flag(&config, "only_in_migration", false);
    if (!cf_texts(&config, "commands", &denied))
        for (uint32_t i = 0; i < sizeof standard / sizeof *standard; i++) cf_add_name(&denied, cf_text(standard[i]));
    return cf_configured(&config);
}

CF_HOOK(cf_on_request)(uint32_t length) {
    const cf_request *request = cf_request_view();
    cf_bytes command = cf_of(request, request->command);
    if ((!only_in_migration || request->phase >= CF_MIGRATE) && cf_listed(&denied, command)) {
        cf_counter_add("denied", 6, 1);
        return cf_for_command(cf_refuse(cf_written(cf_say(cf_say_bytes(cf_begin(), command), " is switched off during the migration"))));
    }
    return cf_for_command(request->class_ == CF_READ ? cf_mirror_compare() : cf_forward());
}
