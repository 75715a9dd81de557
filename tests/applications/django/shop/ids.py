"""Integer keys from a range of each node's own; SQLite itself would give the same ids on all nodes."""

from django.conf import settings
from django.db.models import AutoField, Max
from django.db.models.signals import pre_save
from django.dispatch import receiver


def own_id(model):
    """Django sends no signal for the tables between two models, so whoever writes to those asks for an id."""
    first = settings.SHOP_FIRST_ID
    own = model._base_manager.filter(pk__gte=first, pk__lt=first + settings.SHOP_IDS)
    return (own.aggregate(last=Max("pk"))["last"] or first - 1) + 1


@receiver(pre_save)
def give_own_id(sender, instance, **_kwargs):
    of_this_node_alone = sender._meta.app_label == "migrations"
    if instance.pk is None and not of_this_node_alone and isinstance(sender._meta.pk, AutoField):
        instance.pk = own_id(sender)
