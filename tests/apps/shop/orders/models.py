"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """Something that somebody wants."""

    item = models.CharField(max_length=100)
    is_shipped = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.item


class Shipment(models.Model):
    """One for each time that something was done about an order, and the process that has done it."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    pid = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.order} by {self.pid}"
