"""The shop as each version of its code has it: version 2 adds, 3 alters and renames, 4 removes."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

VERSION = settings.SHOP_VERSION


class Author(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, null=VERSION < 3)
    born = models.DateField(null=True)
    if VERSION >= 2:
        biography = models.TextField(null=True)
    if VERSION >= 3:
        handle = models.SlugField(unique=True, null=True)


class Tag(models.Model):
    name = models.CharField(max_length=30, unique=True)


class Book(models.Model):
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    title = models.TextField() if VERSION >= 3 else models.CharField(max_length=100)
    isbn = models.CharField(max_length=13, unique=True, null=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    details = models.JSONField(default=dict)
    cover = models.BinaryField(default=b"")
    published = models.DateTimeField(null=True)
    bestseller = models.BooleanField(default=False)
    tags = models.ManyToManyField(Tag)
    if VERSION < 4:
        edition = models.PositiveSmallIntegerField(default=1)
    if VERSION >= 2:
        stock = models.IntegerField(default=0)
        language = models.CharField(max_length=5, db_default="en")

    class Meta:
        indexes = [models.Index(Lower("title"), name="book_title_lower")]
        constraints = [
            models.UniqueConstraint(fields=["author", "title"], name="book_of_author"),
            models.UniqueConstraint(fields=["author"], condition=Q(bestseller=True), name="one_bestseller"),
            models.CheckConstraint(condition=Q(price__gte=0), name="price_is_no_debt"),
        ]


class Review(models.Model):
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="reviews")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)
    if VERSION < 3:
        text = models.TextField()
    else:
        body = models.TextField()


if VERSION >= 2:

    class Order(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
        book = models.ForeignKey(Book, on_delete=models.PROTECT)
        amount = models.PositiveIntegerField(default=1)
