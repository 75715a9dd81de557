from django.db import migrations, models


def name_everyone(apps, _schema_editor):
    apps.get_model('shop', 'Author').objects.filter(name=None).update(name='(nameless)')


class Migration(migrations.Migration):

    dependencies = [
        ('shop', '0002_add'),
    ]

    operations = [
        migrations.RenameField(
            model_name='review',
            old_name='text',
            new_name='body',
        ),
        migrations.AddField(
            model_name='author',
            name='handle',
            field=models.SlugField(null=True, unique=True),
        ),
        migrations.RunPython(name_everyone, migrations.RunPython.noop),
        migrations.AlterField(
            model_name='author',
            name='name',
            field=models.CharField(max_length=100),
        ),
        migrations.AlterField(
            model_name='book',
            name='title',
            field=models.TextField(),
        ),
    ]
