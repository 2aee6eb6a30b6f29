using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace ModelHost.Data.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class Initial : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "Nodes",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Uid = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Hostname = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    IpAddress = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    CreatedAt = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Nodes", x => x.Id);
                });

            migrationBuilder.CreateTable(
                name: "Deployments",
                columns: table => new
                {
                    Id = table.Column<int>(type: "INTEGER", nullable: false)
                        .Annotation("Sqlite:Autoincrement", true),
                    Uid = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    NodeId = table.Column<int>(type: "INTEGER", nullable: false),
                    Spec = table.Column<string>(type: "TEXT", maxLength: 1048576, nullable: false),
                    EnvValues = table.Column<string>(type: "TEXT", maxLength: 1048576, nullable: true),
                    LatestVersion = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    Wanted = table.Column<string>(type: "TEXT", maxLength: 32, nullable: false),
                    Status = table.Column<string>(type: "TEXT", maxLength: 32, nullable: false),
                    Detail = table.Column<string>(type: "TEXT", maxLength: 255, nullable: true),
                    LastError = table.Column<string>(type: "TEXT", maxLength: 16384, nullable: true),
                    RunId = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    RunSeen = table.Column<bool>(type: "INTEGER", nullable: false),
                    ReservedPort = table.Column<int>(type: "INTEGER", nullable: true),
                    CreatedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    StatusChangedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    ExpiresAt = table.Column<long>(type: "INTEGER", nullable: true),
                    EngineVersion = table.Column<string>(type: "TEXT", maxLength: 255, nullable: true),
                    ImageDigest = table.Column<string>(type: "TEXT", maxLength: 512, nullable: true),
                    TotalPromptTokens = table.Column<long>(type: "INTEGER", nullable: false),
                    TotalCompletionTokens = table.Column<long>(type: "INTEGER", nullable: false),
                    TotalRequests = table.Column<long>(type: "INTEGER", nullable: false),
                    CountedPromptTokens = table.Column<double>(type: "REAL", nullable: false),
                    CountedCompletionTokens = table.Column<double>(type: "REAL", nullable: false),
                    CountedRequests = table.Column<double>(type: "REAL", nullable: false),
                    Version = table.Column<int>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_Deployments", x => x.Id);
                    table.ForeignKey(
                        name: "FK_Deployments_Nodes_NodeId",
                        column: x => x.NodeId,
                        principalTable: "Nodes",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Restrict);
                });

            migrationBuilder.CreateTable(
                name: "PublicNames",
                columns: table => new
                {
                    Name = table.Column<string>(type: "TEXT", maxLength: 255, nullable: false),
                    DeploymentId = table.Column<int>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_PublicNames", x => x.Name);
                    table.ForeignKey(
                        name: "FK_PublicNames_Deployments_DeploymentId",
                        column: x => x.DeploymentId,
                        principalTable: "Deployments",
                        principalColumn: "Id",
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateIndex(
                name: "IX_Deployments_NodeId_ReservedPort",
                table: "Deployments",
                columns: new[] { "NodeId", "ReservedPort" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_Deployments_Uid",
                table: "Deployments",
                column: "Uid",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_Nodes_Uid",
                table: "Nodes",
                column: "Uid",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "IX_PublicNames_DeploymentId",
                table: "PublicNames",
                column: "DeploymentId");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "PublicNames");

            migrationBuilder.DropTable(
                name: "Deployments");

            migrationBuilder.DropTable(
                name: "Nodes");
        }
    }
}
