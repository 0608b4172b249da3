"""Where the shop's views are."""

from django.urls import path
from orders import views

urlpatterns = [
    path("order/<str:item>", views.order),
    path("refuse/<str:item>", views.refuse),
    path("hold/<str:item>/<str:seconds>", views.hold),
    path("process", views.process),
]
