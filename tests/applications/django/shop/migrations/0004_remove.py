from django.db import migrations


# SQLite drops no column that a trigger names, so a migration that does takes Marmot's triggers away; Marmot puts them back.
WITHOUT_TRIGGERS = [f'DROP TRIGGER IF EXISTS __marmot__shop_book_{kind}' for kind in ('insert', 'update', 'key', 'delete')]


class Migration(migrations.Migration):

    dependencies = [
        ('shop', '0003_alter'),
    ]

    operations = [
        migrations.RunSQL(WITHOUT_TRIGGERS, migrations.RunSQL.noop),
        migrations.RemoveField(
            model_name='book',
            name='edition',
        ),
    ]
