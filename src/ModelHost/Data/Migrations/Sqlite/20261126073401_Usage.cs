using System;
using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class Usage : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Usage",
                columns: table => new
                {
                    KeyId = table.Column<int>(type: "INTEGER", nullable: false),
                    DeploymentUid = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Day = table.Column<DateOnly>(type: "TEXT", nullable: false),
                    KeyLabel = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    DeploymentId = table.Column<int>(type: "INTEGER", nullable: false),
                    Model = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Owner = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Requests = table.Column<long>(type: "INTEGER", nullable: false),
                    Aborted = table.Column<long>(type: "INTEGER", nullable: false),
                    Failed = table.Column<long>(type: "INTEGER", nullable: false),
                    PromptTokens = table.Column<long>(type: "INTEGER", nullable: false),
                    CompletionTokens = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Usage", x => new { x.Day, x.KeyId, x.DeploymentUid });
                });

            migrationBuilder.CreateIndex(
                name: "IX_Usage_DeploymentUid_Day",
                table: "Usage",
                columns: new[] { "DeploymentUid", "Day" });

            migrationBuilder.CreateIndex(
                name: "IX_Usage_KeyId_Day",
                table: "Usage",
                columns: new[] { "KeyId", "Day" });
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "Usage");
        }
    }
}
